#!/usr/bin/env python3
"""Tokens per second of `reap_dist observe` beside a hand-written PyTorch script, on one machine in one run.

  python3 bench/observe_bench.py --peer baseline_torch.py [--tiny MODEL_DIR] [--build build/cpu] [--threads 1] [--rounds 3]

Two models: --tiny (small experts; skipped when not given) and one layer at MiniMax-M2's real widths (hidden 3072, inner
1536, 32 experts, top-8, random weights, written to a temporary folder). Both programs take samples of 512 tokens; ours
packs them into blocks of 4,096. Rates are per second of processor time, times the threads, so that other work on the machine
weighs little; the programs take turns, `--rounds` times, and the best of each counts. bench/kernels_bench shows our share of the rate that oneDNN reaches alone on
the same shapes. Needs numpy and h5py; torch and transformers for the peer.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
LENGTH = 512
REAL = dict(layers=1, experts=32, top_k=8, hidden=3072, inter=1536, heads=48, kv_heads=8, head_dim=128, rotary_dim=64,
            vocab=2048)


def make_calibration(path, vocab, samples):
    sys.path.insert(0, str(REPO / "tests/tools"))
    import random_checkpoint

    random_checkpoint.write_calibration(path, vocab, samples, LENGTH, seed=1)


def make_real_layer(folder):
    options = [f"--{k.replace('_', '-')}={v}" for k, v in REAL.items()]
    subprocess.run([sys.executable, REPO / "tests/tools/random_checkpoint.py", "--out", folder, *options], check=True)


def ours(build, model, calibration, compute, threads, folder):
    """tokens and GFLOP per second of processor time, times threads; loading is not counted"""
    metrics, saliency = folder / "metrics.jsonl", folder / "saliency.h5"
    metrics.unlink(missing_ok=True)
    saliency.unlink(missing_ok=True)
    subprocess.run([build / "reap_dist", "observe", "--model", model, "--calibration", calibration, "--saliency", saliency,
                    "--compute", compute, "--threads", str(threads), "--metrics", metrics],
                   check=True, stderr=subprocess.DEVNULL)
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    end = next(x for x in lines if x["event"] == "phase_end" and x["phase"] == "observe")
    return end["total"] / end["cpu_seconds"] * threads, end["gflops"] * end["seconds"] / end["cpu_seconds"] * threads


def peer(script, case, compute, threads, samples):
    model = ["--real-layer", "--experts", str(REAL["experts"])] if case == "real" else ["--model", case]
    dtype = {"fp32": "float32", "bf16": "bfloat16"}[compute]
    out = subprocess.run([sys.executable, script, *model, "--seqs", str(samples), "--len", str(LENGTH), "--dtype", dtype,
                          "--mode", "fused", "--threads", str(threads)], check=True, capture_output=True, text=True).stdout
    result = json.loads(next(x for x in out.splitlines() if x.startswith("BASE "))[5:])
    return result["tokens"] / result["cpu_s"] * threads


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="the PyTorch script; without it only our own rate is shown")
    parser.add_argument("--tiny", type=Path, help="a checkpoint with small experts")
    parser.add_argument("--build", type=Path, default=REPO / "build/cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    print(f"{'model':<12} {'compute':<8} {'ours tok/s':>11} {'GFLOP/s':>9} {'peer tok/s':>11} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = []
        if args.tiny:
            vocab = json.loads((args.tiny / "config.json").read_text())["vocab_size"]
            cases.append((args.tiny.name, args.tiny, str(args.tiny), vocab, 64))
        make_real_layer(folder / "real")
        cases.append(("real-widths", folder / "real", "real", REAL["vocab"], 16))
        for label, model, case, vocab, samples in cases:
            calibration = folder / f"{label}.h5"
            make_calibration(calibration, vocab, samples)
            for compute in ("fp32", "bf16"):
                best, best_peer = (0.0, 0.0), 0.0
                for _ in range(args.rounds):
                    best = max(best, ours(args.build, model, calibration, compute, args.threads, folder))
                    if args.peer:
                        best_peer = max(best_peer, peer(args.peer, case, compute, args.threads, samples))
                ratio = f"{best[0] / best_peer:6.2f}" if best_peer else "     -"
                print(f"{label:<12} {compute:<8} {best[0]:11.0f} {best[1]:9.1f} {best_peer:11.0f} {ratio}", flush=True)


if __name__ == "__main__":
    main()
