#!/usr/bin/env python3
"""Weights of 4 bits as others unpack them: the values are ours, bit for bit, and so are the logits of a model made of them.

  w4a16_opens.py --reap-dist build/cpu/reap_dist --dump-logits build/cpu/tests/dump_logits --model DIR

- auto-round and gptq: unpacked here as GPTQ v1 defines it; the model of those fp32 weights gives the very logits of the 4-bit one.
- compressed-tensors: unpacked by that package, where it is installed; stock transformers then opens the folder as well.
Exits with 77 (skipped, for ctest) without torch and safetensors.
"""
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SKIPPED = 77
TOKENS = "1 2 3 5 8 13 21 34 55 89 144 233"
# transformers multiplies in fp32 with weights that compressed-tensors rounds to bf16, ours are exact.
RELATIVE = 2e-2  # of the largest logit


def load(folder, safe_open):
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            tensors.update({name: opened.get_tensor(name) for name in opened.keys()})
    return tensors


def unpack_gptq(tensors, torch):
    """[outputs, inputs] of every layer: (code - (zero + 1)) * scale"""
    nibbles = torch.arange(0, 32, 4)
    weights = {}
    for name in [name for name in tensors if name.endswith(".qweight")]:
        layer = name.removesuffix(".qweight")
        code = ((tensors[name].unsqueeze(1) >> nibbles.view(1, 8, 1)) & 15).flatten(0, 1)  # [inputs, outputs]
        zero = ((tensors[layer + ".qzeros"].unsqueeze(2) >> nibbles) & 15).flatten(1) + 1  # [groups, outputs]
        scale = tensors[layer + ".scales"].float()
        group = torch.arange(code.shape[0]) // (code.shape[0] // scale.shape[0])
        if layer + ".g_idx" in tensors:
            assert torch.equal(tensors[layer + ".g_idx"].long(), group), layer
        weights[layer] = ((code - zero[group]).float() * scale[group]).T.contiguous()
    return weights


def unpack_packed(tensors, torch, unpack_from_int32):
    weights = {}
    for name in [name for name in tensors if name.endswith(".weight_packed")]:
        layer = name.removesuffix(".weight_packed")
        code = unpack_from_int32(tensors[name], 4, torch.Size(tensors[layer + ".weight_shape"].tolist())).float()
        scale = tensors[layer + ".weight_scale"].float()
        weights[layer] = code * scale.repeat_interleave(code.shape[1] // scale.shape[1], dim=1)
    return weights


def logits(program, folder, numpy):
    with tempfile.NamedTemporaryFile(suffix=".npy") as out:
        subprocess.run([program, folder, out.name], input=TOKENS, text=True, check=True)
        return numpy.load(out.name)


def expanded_model(source, tensors, weights, folder, save_file):
    """The same model with fp32 weights."""
    folder.mkdir()
    parts = (".qweight", ".qzeros", ".scales", ".g_idx")
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(parts)}
    save_file(kept | {layer + ".weight": weight for layer, weight in weights.items()}, folder / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))


def check_transformers(folder, program, numpy, torch):
    import transformers

    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info.get(kind), f"{folder.name}: {kind}: {sorted(info[kind])[:5]}"
    with torch.no_grad():
        theirs = model.eval()(torch.tensor([[int(token) for token in TOKENS.split()]])).logits[0].float().numpy()
    ours = logits(program, folder, numpy)
    worst = float(abs(ours - theirs).max() / abs(theirs).max())
    assert worst <= RELATIVE, f"transformers: logits differ by {worst:.1e} of the largest"
    print(f"transformers {transformers.__version__}: opens it, logits within {worst:.1e} of ours")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--reap-dist", "--dump-logits", "--model"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args()
    try:
        import numpy
        import torch
        from safetensors import safe_open
        from safetensors.torch import save_file
    except ImportError as error:
        print(f"skipped: {error}; set REAP_PYTHON to an interpreter that has torch and safetensors")
        sys.exit(SKIPPED)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        tensors, weights = {}, {}
        for form in ("auto-round", "gptq", "compressed-tensors"):
            subprocess.run([args.reap_dist, "quantize", "--model", args.model, "--output", work / form, "--format", form],
                           check=True)
            tensors[form] = load(work / form, safe_open)
        for form in ("auto-round", "gptq"):
            weights = unpack_gptq(tensors[form], torch)
            expanded_model(work / form, tensors[form], weights, work / "expanded", save_file)
            ours, theirs = (logits(args.dump_logits, work / name, numpy) for name in (form, "expanded"))
            assert numpy.array_equal(ours, theirs), f"{form}: other logits than those of its weights in fp32"
            shutil.rmtree(work / "expanded")
            print(f"{form}: {len(weights)} weights unpacked, logits of the fp32 model equal")
        try:
            from compressed_tensors.compressors import unpack_from_int32
        except ImportError as error:
            print(f"compressed-tensors: not unpacked: {error}")
            return
        packed = unpack_packed(tensors["compressed-tensors"], torch, unpack_from_int32)
        assert packed.keys() == weights.keys()
        for layer, weight in weights.items():
            assert torch.equal(packed[layer], weight), f"compressed-tensors: {layer}"
        print(f"compressed-tensors: unpacks {len(packed)} weights to the same values")
        check_transformers(work / "compressed-tensors", args.dump_logits, numpy, torch)


if __name__ == "__main__":
    main()
