#!/usr/bin/env python3
"""The write phase of `reap_dist prune` beside `cp -r` of the same bytes, both until the bytes are on the disk.

  python3 bench/write_bench.py [--folder DIR] [--build build/cpu] [--layers 4] [--ranks 1 2] [--rounds 5]

Makes a random checkpoint of MiniMax-M2's widths (bf16, 32 experts, about 1 GB per layer) in a temporary folder under
--folder, which decides the disk that is measured, and prunes it to 24 experts. cp copies the pruned model. All take
turns, --rounds times, and the best of each counts, because other work on the machine only ever slows one down. The
pruned model is written anew each time, hashed on the way (SHA-256 per file, XXH3-128 per tensor), in files of at most
250 MB, so that several ranks have equal work. Needs numpy and h5py, and three times the disk space of the source.
mpirun is started as it is: set its environment as the machine needs it.
"""
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
WIDTHS = dict(experts=32, top_k=8, hidden=3072, inter=1536, heads=48, kv_heads=8, head_dim=128, rotary_dim=64, vocab=2048)
KEEP = 24


def size_of(folder):
    return sum(file.stat().st_size for file in folder.iterdir())


def sync(folder):
    subprocess.run(["sync", "-f", folder], check=True)


def make_source(folder, layers):
    """A checkpoint and a calibration file of a few tokens: enough for some plan."""
    options = [f"--{key.replace('_', '-')}={value}" for key, value in WIDTHS.items()]
    subprocess.run([sys.executable, REPO / "tests/tools/random_checkpoint.py", "--out", folder / "source", "--layers", str(layers),
                    "--calibration", folder / "calibration.h5", "--samples", "1", "--length", "64", *options], check=True)


def make_plan(reap_dist, folder):
    quiet = dict(check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run([reap_dist, "observe", "--model", folder / "source", "--calibration", folder / "calibration.h5",
                    "--saliency", folder / "saliency.h5"], **quiet)
    subprocess.run([reap_dist, "plan", "--saliency", folder / "saliency.h5", "--keep", str(KEEP), "--plan",
                    folder / "plan.json"], **quiet)


def write_seconds(reap_dist, folder, ranks):
    output, metrics = folder / "pruned", folder / "metrics.jsonl"
    shutil.rmtree(output, ignore_errors=True)
    metrics.unlink(missing_ok=True)
    sync(folder)
    subprocess.run(["mpirun", "-n", str(ranks), reap_dist, "prune", "--model", folder / "source", "--plan", folder / "plan.json",
                    "--output", output, "--max-shard-size", "250MB", "--verify", "0", "--metrics", metrics], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    events = [json.loads(line) for line in metrics.read_text().splitlines()]
    return next(e["seconds"] for e in events if e["event"] == "phase_end" and e["phase"] == "write")


def copy_seconds(folder):
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    sync(folder)
    begin = time.monotonic()
    subprocess.run(["cp", "-r", folder / "pruned", copy], check=True)
    sync(copy)
    elapsed = time.monotonic() - begin
    shutil.rmtree(copy)
    return elapsed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("."))
    parser.add_argument("--build", type=Path, default=REPO / "build/cpu")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    reap_dist = (args.build / "reap_dist").resolve()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="write_bench_") as work:
        folder = Path(work)
        make_source(folder, args.layers)
        make_plan(reap_dist, folder)
        best = {}
        for _ in range(args.rounds):
            for ranks in args.ranks:
                best[ranks] = min(best.get(ranks, 1e9), write_seconds(reap_dist, folder, ranks))
            best["cp"] = min(best.get("cp", 1e9), copy_seconds(folder))
        gigabytes = size_of(folder / "pruned") / 1e9
        print(f"{gigabytes:.2f} GB, best of {args.rounds}")
        print(f"cp -r and sync    {gigabytes / best['cp']:.2f} GB/s")
        for ranks in args.ranks:
            print(f"prune, {ranks} rank(s)  {gigabytes / best[ranks]:.2f} GB/s, {best['cp'] / best[ranks]:.2f} of cp")


if __name__ == "__main__":
    main()
