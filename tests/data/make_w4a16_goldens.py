"""Writes tests/data/w4a16: rows of the package's own output, and what its formulas give in torch for other types.

    python3 make_w4a16_goldens.py <goldens/w4a16>    (needs torch, numpy, safetensors)

The formulas are AutoRound 0.12.2's (docs/numerics.md), written down once more here, in torch as there; on the goldens
they give the package's integers and scales, which this program checks before it writes anything.
"""
import glob
import json
import pathlib
import sys

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent / "w4a16"
ROWS = 48  # of the package's output
PARTS = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3", ".mlp.": ".block_sparse_moe."}


def reciprocal(x):
    least = 1e-5 if x.dtype == torch.float16 else 1e-30
    known = x.abs() >= least
    return torch.where(known, 1.0 / torch.where(known, x, torch.ones_like(x)), torch.zeros_like(x))


def from_zero(scale):
    return torch.where(scale < 0, torch.clamp(scale, max=-1e-5), torch.clamp(scale, min=1e-5))


def rtn(w):
    low, high = -torch.clamp(w.min(-1)[0], max=0), torch.clamp(w.max(-1)[0], min=0)
    size = (2 * (high < low).int() - 1) * torch.max(high, low)
    scale = from_zero((size / 8).to(torch.float16)).unsqueeze(-1)
    return scale, torch.clamp(torch.round(w / scale), -8, 7)


def filled(importance, w):
    if torch.min(importance) != 0:
        return importance
    importance = importance.clone()
    zeros = torch.sum(importance <= 1e-30, dim=-1)
    by_weights = zeros > 16
    stand_in = torch.abs(w) + torch.sqrt(torch.sum(torch.pow(w, 2), dim=-1, keepdim=True) / 32)
    importance[by_weights] = stand_in.to(importance.dtype)[by_weights]
    mean = torch.sum(importance, dim=-1) / (importance.shape[-1] - zeros)
    few = (importance == 0) & ((zeros > 0) & (zeros <= 16)).unsqueeze(-1)
    return torch.where(few, mean.unsqueeze(-1).expand_as(importance), importance)


def opt_rtn(w, importance=None):
    if importance is not None:
        importance = filled(importance, w)
    group_max = torch.take_along_dim(w, w.abs().argmax(-1, keepdim=True), dim=-1)

    def attempt(factor):
        inverse = factor * reciprocal(group_max)
        level = torch.clamp(torch.round(inverse * w), -8, 7)
        scale = reciprocal(inverse)
        loss = (scale * level - w).to(torch.float32) ** 2
        return scale, torch.sum(loss if importance is None else loss * importance, dim=-1)

    scale, least = attempt(-8)
    for i in range(-90, 91):
        if i == 0:
            continue
        candidate, loss = attempt(-(8 - 0.01 * i))
        better = loss < least
        scale[better], least[better] = candidate[better], loss[better]
    scale = from_zero(scale)
    return scale, torch.clamp(torch.round(w / scale), -8, 7)


def quantise(w, group, method, importance=None):
    """words [rows, cols / 8] and scales [rows, groups]"""
    rows, cols = w.shape
    grouped = w.reshape(rows, cols // group, group)
    if importance is not None:
        importance = importance.reshape(1, cols // group, group).expand_as(grouped).contiguous()
    scale, level = rtn(grouped) if method == "rtn" else opt_rtn(grouped, importance)
    code = (level.reshape(rows, cols // 8, 8).to(torch.int64) + 8) << torch.arange(0, 32, 4)
    return code.sum(-1).to(torch.int32), scale.squeeze(-1).to(torch.float16)


def package_cases(goldens):
    source, cases = {}, {}
    for file in glob.glob(f"{goldens}/source/*.safetensors"):
        with safe_open(file, "pt") as opened:
            source.update({name: opened.get_tensor(name) for name in opened.keys()})
    for method in ["rtn", "opt-rtn"]:
        importance = np.load(f"{goldens}/opt-rtn/imatrix.npz")
        with safe_open(f"{goldens}/{method}/model.safetensors", "pt") as written:
            for name in sorted(written.keys()):
                if not name.endswith(".qweight"):
                    continue
                layer = name.removesuffix(".qweight")
                old = layer
                for new_part, part in PARTS.items():
                    old = old.replace(new_part, part)
                w = source[old + ".weight"]
                weight = torch.from_numpy(importance[layer]) if method == "opt-rtn" else None
                words, scales = quantise(w, 128, method, weight)
                assert torch.equal(words.T, written.get_tensor(name)), name
                assert torch.equal(scales.T, written.get_tensor(layer + ".scales")), name
                if layer in ("model.layers.1.self_attn.o_proj", "model.layers.2.mlp.experts.3.down_proj"):
                    case = f"package-{method}-{layer.split('.')[-1]}.128.{method}"
                    cases[case] = (w[:ROWS], weight, words[:ROWS], scales[:ROWS])
    return cases


def awkward_weights(dtype, group, seed):
    torch.manual_seed(seed)
    w = (torch.randn(12, 256) * 0.02).to(dtype)
    w[0, :group] = 0
    w[1, :group] = (torch.randn(group) * 1e-5).to(dtype)  # scales at their least, and below
    w[2, :group] = torch.tensor([0.5, -0.5]).repeat(group // 2).to(dtype)  # the first of equals leads
    w[3, :group] = torch.tensor([-0.5, 0.5]).repeat(group // 2).to(dtype)
    w[4, :group] = torch.arange(group).to(dtype) / 16  # half ways
    w[5] = (torch.randn(256) * 1e4).to(dtype)
    w[6, :group] = w[6, :group].abs()
    w[7, :group] = -w[7, :group].abs()
    w[8, :group] = (torch.randn(group) * 5e-5).to(dtype)
    w[9, :group] = (torch.randint(-8, 8, (group,)) * 0.25).to(dtype)
    w[10, :group] = 0
    w[10, 5] = 1.3e-4  # its reciprocal times 8.9 is beyond fp16
    return w


def torch_cases():
    cases = {}
    for dtype in [torch.bfloat16, torch.float16, torch.float32]:
        for group in [32, 64, 128]:
            w = awkward_weights(dtype, group, group)
            importance = torch.rand(256) ** 4
            importance[:3] = 0  # a few unknown inputs
            importance[group : group + 20] = 0  # many
            name = f"{str(dtype).removeprefix('torch.')}.{group}"
            cases[f"{name}.rtn"] = (w, None, *quantise(w, group, "rtn"))
            cases[f"{name}.opt-rtn"] = (w, None, *quantise(w, group, "opt-rtn"))
            cases[f"{name}.opt-rtn-importance"] = (w, importance, *quantise(w, group, "opt-rtn", importance))
    return cases


def main():
    tensors = {}
    for name, (w, importance, words, scales) in (package_cases(sys.argv[1]) | torch_cases()).items():
        tensors[f"{name}/weight"] = w.contiguous().clone()
        tensors[f"{name}/words"] = words.contiguous().clone()
        tensors[f"{name}/scales"] = scales.contiguous().clone()
        if importance is not None:
            tensors[f"{name}/importance"] = importance.clone()
    HERE.mkdir(exist_ok=True)
    save_file(tensors, HERE / "model.safetensors")
    (HERE / "config.json").write_text(json.dumps({}) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
