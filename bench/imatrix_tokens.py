#!/usr/bin/env python3
"""How many tokens importance of inputs needs to be worth having: why --imatrix-tokens is 32.

  bench/imatrix_tokens.py ORACLE CHECKPOINT TOKENS.h5 [--samples 64] [--experts 40]

For experts with many tokens: the squared error of a rounded layer's outputs (opt-rtn) over one half of its tokens, with importance by the
first n tokens of the other half, against that without importance. ORACLE is a folder with a float implementation of the
model (oracle.py, class RefModel); rounding is that of tests/data/make_w4a16_goldens.py. Needs torch, h5py and safetensors.
"""
import argparse
import sys
from pathlib import Path

import torch

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO / "tests/data"))
import make_w4a16_goldens as formulas  # noqa: E402

TOKENS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
LEAST = 2 * TOKENS[-1] + 76  # of an expert that takes part


def collect(oracle, checkpoint, sequences):
    """the model, and by (layer, expert) the inputs of w1 and those of w2"""
    model = oracle.RefModel(checkpoint, torch.float32)
    inputs = {}

    def expert(layer, number, x):
        prefix = f"model.layers.{layer}.block_sparse_moe.experts.{number}."
        gated = torch.nn.functional.silu(x @ model.T[prefix + "w1.weight"].T) * (x @ model.T[prefix + "w3.weight"].T)
        inputs.setdefault((layer, number), []).append((x, gated))
        return gated @ model.T[prefix + "w2.weight"].T

    model.expert = expert
    for sequence in sequences:
        model(torch.from_numpy(sequence)[None], lambda *_: None)
    return model, {key: [torch.cat(part) for part in zip(*parts)] for key, parts in inputs.items()}


def output_error(weight, importance, inputs):
    group = 128 if weight.shape[1] % 128 == 0 else 64
    grouped = weight.reshape(weight.shape[0], -1, group)
    if importance is not None:
        importance = importance.reshape(1, -1, group).expand_as(grouped).contiguous()
    scale, level = formulas.opt_rtn(grouped, importance)
    rounded = (level.float() * scale.to(torch.float16).float()).reshape(weight.shape)
    return float(((weight.float() - rounded) @ inputs.T).square().sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("oracle", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--experts", type=int, default=40)
    args = parser.parse_args()
    sys.path.insert(0, str(args.oracle))
    import oracle

    torch.set_grad_enabled(False)
    random = torch.Generator().manual_seed(1)
    samples = oracle.read_tokens(args.tokens)[0]
    order = torch.randperm(len(samples), generator=random)[: args.samples]
    model, inputs = collect(oracle, args.checkpoint, [samples[i] for i in order])
    busy = sorted((key for key in inputs if len(inputs[key][0]) >= LEAST), key=lambda key: -len(inputs[key][0]))
    busy = busy[: args.experts]
    ratios = {"w1": torch.zeros(len(TOKENS)), "w2": torch.zeros(len(TOKENS))}
    for layer, number in busy:
        for name, x in zip(ratios, inputs[layer, number]):
            weight = model.T[f"model.layers.{layer}.block_sparse_moe.experts.{number}.{name}.weight"].to(torch.bfloat16)
            half = len(x) // 2
            seen = x[torch.randperm(half, generator=random)]
            plain = output_error(weight, None, x[half:])
            errors = [output_error(weight, seen[:n].square().sum(0), x[half:]) / plain for n in TOKENS]
            ratios[name] += torch.tensor(errors) / len(busy)
    print(f"{len(busy)} experts; n: " + " ".join(f"{n:>6}" for n in TOKENS))
    for name, mean in ratios.items():
        print(f"{name}             " + " ".join(f"{value:6.3f}" for value in mean.tolist()))


if __name__ == "__main__":
    main()
