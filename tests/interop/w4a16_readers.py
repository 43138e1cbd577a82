#!/usr/bin/env python3
"""Weights of 4 bits as the packages that define the formats expand them: every value is ours, bit for bit.

  w4a16_readers.py --reap-dist build/cpu/reap_dist --model DIR

- auto-round's linear layer of `auto_round:auto_gptq`, given the tensors of the format auto-round.
- gptqmodel's linear layer, given those of the format gptq.
Each package is left out, with a word, where it cannot be imported; exits with 77 (skipped, for ctest) when both are.
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from w4a16_opens import SKIPPED, load, unpack_gptq


def layer_state(tensors, layer, names):
    return {name: tensors[f"{layer}.{name}"] for name in names}


def shape_of(tensors, layer):
    """inputs, outputs, group"""
    inputs, outputs = 8 * tensors[layer + ".qweight"].shape[0], tensors[layer + ".qweight"].shape[1]
    return inputs, outputs, inputs // tensors[layer + ".scales"].shape[0]


def auto_round_reader(torch):
    from auto_round import __version__ as version
    from auto_round_extension.torch.qlinear_torch_zp import QuantLinear

    def expand(tensors, layer):
        inputs, outputs, group = shape_of(tensors, layer)
        linear = QuantLinear(4, group, inputs, outputs, bias=False)
        linear.load_state_dict(layer_state(tensors, layer, linear.state_dict()))
        linear.scales = linear.scales.float()  # else products are rounded to fp16
        return linear(torch.eye(inputs)).T

    return f"auto-round {version}", ("auto-round",), expand


def gptqmodel_reader(torch):
    from gptqmodel import __version__ as version
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    def expand(tensors, layer):
        inputs, outputs, group = shape_of(tensors, layer)
        linear = TorchLinear(bits=4, group_size=group, sym=True, desc_act=False, in_features=inputs,
                             out_features=outputs, bias=False, register_buffers=True)
        linear.load_state_dict(layer_state(tensors, layer, linear.state_dict()))
        convert_gptq_v1_to_v2_format_module(linear, 4, torch.int32)
        linear.post_init()
        linear.scales = linear.scales.float()
        return linear.dequantize_weight().T.float()

    return f"gptqmodel {version}", ("gptq",), expand


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--reap-dist", "--model"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args()
    readers = []
    try:
        import torch
        from safetensors import safe_open

        for reader in (auto_round_reader, gptqmodel_reader):
            try:
                readers.append(reader(torch))
            except ImportError as error:
                print(f"{reader.__name__}: left out: {error}")
    except ImportError as error:
        print(error)
    if not readers:
        print("skipped; set REAP_PYTHON to an interpreter that has torch, safetensors, and auto-round or gptqmodel")
        sys.exit(SKIPPED)
    with tempfile.TemporaryDirectory() as work:
        for form in ("auto-round", "gptq"):
            folder = Path(work) / form
            subprocess.run([args.reap_dist, "quantize", "--model", args.model, "--output", folder, "--format", form,
                            "--method", "opt-rtn"], check=True)
            tensors = load(folder, safe_open)
            ours = unpack_gptq(tensors, torch)
            for name, forms, expand in readers:
                if form not in forms:
                    continue
                for layer, weight in ours.items():
                    assert torch.equal(expand(tensors, layer), weight), f"{name}, {form}: {layer}"
                print(f"{name}: {form}: {len(ours)} weights have our values")


if __name__ == "__main__":
    main()
