#!/usr/bin/env python3
"""Derive the bundled goldens from the full ones.

    make_compact_goldens.py FULL_GOLDENS tests/data/goldens

FULL_GOLDENS holds, per checkpoint, what an independent float64 implementation of the model gave (README.md beside this
file lists the contents). The compact files keep the paths, shapes and types of the full ones, so that one reader serves
both; they hold fewer sequences, the gate mode `model` alone, and the calibration files that are bundled.
Needs h5py and numpy; the same input gives the same output.
"""
import argparse
import json
from pathlib import Path

import h5py

# Sequences to keep. Lengths (mini: 1, 33, 129; nano: 1, 5, 129) cover a lone token, logits at every position, and a
# sequence past one 128-row tile with logits at its end.
MODELS = {
    "m2-mini-bf16": {"tokens": "random_v211", "sequences": [0, 3, 8]},
    "m2-mini-fp8": {"tokens": "random_v211", "sequences": [0, 3, 8]},
    "m2-nano-fp8": {"tokens": "calib_64x512", "sequences": [0, 3, 10]},
}
COMPRESS_FROM = 4096  # bytes; below, a chunk's index costs more than gzip saves


def copy_group(source, target):
    """Copies datasets and attributes; storage is chosen anew, values and types are not touched."""
    target.attrs.update(source.attrs)
    for name in sorted(source):
        item = source[name]
        if isinstance(item, h5py.Group):
            copy_group(item, target.create_group(name))
            continue
        storage = {}
        if item.nbytes >= COMPRESS_FROM:
            storage = {"chunks": item.shape, "compression": "gzip", "compression_opts": 9, "shuffle": True}
        dataset = target.create_dataset(name, data=item[()], dtype=item.dtype, track_times=False, **storage)
        dataset.attrs.update(item.attrs)


def compact_forward(source, target, sequences):
    with h5py.File(source) as full, h5py.File(target, "w", libver="earliest") as compact:
        compact.attrs.update(full.attrs)
        for sequence in sequences:
            copy_group(full[f"seq{sequence}"], compact.create_group(f"seq{sequence}"))


def compact_saliency(source, target):
    with h5py.File(source) as full, h5py.File(target, "w", libver="earliest") as compact:
        compact.attrs.update(full.attrs)
        copy_group(full["model"], compact.create_group("model"))
        compact.create_dataset("min_topk_margin", data=full["min_topk_margin"][()], track_times=False)


def compact_plans(source, target, tokens):
    plans = json.loads(source.read_text())[tokens]
    kept = [plan for plan in plans if plan["mode"] == "model"]
    target.write_text(json.dumps({tokens: kept}, separators=(",", ":")) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("full", type=Path)
    parser.add_argument("compact", type=Path)
    args = parser.parse_args()
    for model, choice in MODELS.items():
        source, target = args.full / model, args.compact / model
        target.mkdir(parents=True, exist_ok=True)
        saliency = f"saliency_{choice['tokens']}.h5"
        compact_forward(source / "forward.h5", target / "forward.h5", choice["sequences"])
        compact_saliency(source / saliency, target / saliency)
        compact_plans(source / "plans.json", target / "plans.json", choice["tokens"])
        if (source / "ppl.json").exists():
            (target / "ppl.json").write_bytes((source / "ppl.json").read_bytes())


if __name__ == "__main__":
    main()
