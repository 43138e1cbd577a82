#!/usr/bin/env python3
"""Stock transformers opens what `reap_dist run` writes: no missing, unexpected or mismatched key, and its fp32 logits are ours.

  transformers_opens.py --reap-dist build/cpu/reap_dist --dump-logits build/cpu/tests/dump_logits --model DIR --calibration FILE

Exits with 77 (skipped, for ctest) where torch, transformers or, for FP8, accelerate is not installed, or the model is not
there.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SKIPPED = 77
RELATIVE = 1e-4  # of the largest logit; two fp32 implementations of this model differ by about 1e-6
SEQUENCES, LENGTH = 3, 64


def skip(reason):
    print("skipped:", reason)
    sys.exit(SKIPPED)


def is_fp8(folder):
    return "quantization_config" in json.loads((folder / "config.json").read_text())


def load(folder, torch, transformers):
    options = {}
    if is_fp8(folder):
        options["quantization_config"] = transformers.FineGrainedFP8Config(
            dequantize=True, modules_to_not_convert=["gate", "e_score_correction_bias", "lm_head"])
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True,
                                                                    **options)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info.get(kind), f"{folder.name}: {kind}: {sorted(info[kind])[:5]}"
    return model.eval().float()  # the FP8 loader leaves what was not quantised in bf16, whatever dtype it is given


def our_logits(program, folder, tokens, numpy):
    with tempfile.NamedTemporaryFile(suffix=".npy") as out:
        subprocess.run([program, folder, out.name], input=" ".join(map(str, tokens)), text=True, check=True)
        return numpy.load(out.name)


def check(folder, program, torch, transformers, numpy):
    model = load(folder, torch, transformers)
    generator = torch.Generator().manual_seed(5)
    worst = 0.0
    for _ in range(SEQUENCES):
        tokens = torch.randint(model.config.vocab_size, (1, LENGTH), generator=generator)
        with torch.no_grad():
            theirs = model(tokens).logits[0].numpy()
        ours = our_logits(program, folder, tokens[0].tolist(), numpy)
        assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
        worst = max(worst, float(abs(ours - theirs).max() / abs(theirs).max()))
    experts = model.config.num_local_experts
    print(f"{folder.name}: {experts} experts, every key in place, logits within {worst:.1e} of ours")
    assert worst <= RELATIVE, f"{folder.name}: logits differ by {worst:.1e} of the largest"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--reap-dist", "--dump-logits", "--model", "--calibration"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args()
    if not args.model.is_dir():
        skip(f"{args.model} is not there")
    try:
        import numpy
        import torch
        import transformers

        if is_fp8(args.model):
            import accelerate  # noqa: F401  transformers' FP8 loader asks for it
    except ImportError as error:
        skip(f"{error}; set REAP_PYTHON to an interpreter that has torch, transformers and accelerate")
    with tempfile.TemporaryDirectory() as work:
        subprocess.run([args.reap_dist, "run", "--model", args.model, "--calibration", args.calibration, "--ratio", "0.25",
                        "0.5", "--output", work], check=True)
        outputs = sorted(folder for folder in Path(work).glob("reap-*") if folder.is_dir())
        assert len(outputs) == 2, outputs
        for folder in outputs:
            check(folder, args.dump_logits, torch, transformers, numpy)


if __name__ == "__main__":
    main()
