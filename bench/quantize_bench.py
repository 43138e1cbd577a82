#!/usr/bin/env python3
"""Rounding to 4 bits beside the package's formulas in torch, on the same weights, one thread each.

  python3 bench/quantize_bench.py [--build build/cpu] [--threads 1] [--rounds 3]

The formulas are those of tests/data/make_w4a16_goldens.py, operation by operation what AutoRound 0.12.2 runs in torch, and are
found to give the same bits. Ours is quantize_bench (cmake --build --preset cpu --target quantize_bench). Both take turns, and the
best of --rounds counts. Needs torch, numpy and safetensors.
"""
import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO / "tests/data"))
import make_w4a16_goldens as formulas  # noqa: E402

ROWS, COLS = 512, 3072
LINES = {"rtn 128": ("rtn", False), "opt-rtn 128": ("opt-rtn", False), "opt-rtn 128 importance": ("opt-rtn", True)}


def torch_rate(method, weighted):
    weight = (torch.randn(ROWS, COLS) * 0.02).to(torch.bfloat16)
    importance = torch.rand(COLS) + 0.1 if weighted else None
    begin = time.perf_counter()
    formulas.quantise(weight, 128, method, importance)
    return ROWS * COLS / (time.perf_counter() - begin) * 1e-6


def our_rates(program, threads):
    text = subprocess.run([program, str(threads), "0.5"], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"^(\S.*?)\s{2,}([0-9.]+)\s+([0-9.]+)$", text, re.M)
    return {name: (float(rate), float(share)) for name, rate, share in found}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=REPO / "build/cpu", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    theirs = dict.fromkeys(LINES, 0.0)
    ours = dict.fromkeys(LINES, (0.0, 0.0))
    for _ in range(options.rounds):
        for name, rate in our_rates(options.build / "quantize_bench", options.threads).items():
            if name in LINES:
                ours[name] = max(ours[name], rate)
        for name, (method, weighted) in LINES.items():
            theirs[name] = max(theirs[name], torch_rate(method, weighted))
    print(f"{'':<26}{'ours':>10}{'torch':>10}{'ratio':>9}{'of memcpy':>12}   Mweights/s, {options.threads} threads")
    for name in LINES:
        rate, share = ours[name]
        print(f"{name:<26}{rate:>10.1f}{theirs[name]:>10.3f}{rate / theirs[name]:>9.0f}{share:>12.3f}")


if __name__ == "__main__":
    main()
