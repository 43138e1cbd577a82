#!/usr/bin/env python3
"""`reap_dist quantize` of a checkpoint larger than the memory it may use, beside `cp -r` of the same checkpoint.

  sudo python3 bench/quantize_disk_bench.py [--folder DIR] [--build build/cpu] [--layers 6] [--memory 1] [--rounds 3]

Makes a random checkpoint of MiniMax-M2's widths (bf16, 32 experts, about 1 GB per layer) in a temporary folder under --folder,
which decides the disk that is measured. Both run in a memory control group (version 1, /sys/fs/cgroup/memory) that holds
--memory GB, cached file pages included, so that everything comes from the disk and goes to it: both until the bytes are on the
disk. All take turns, and the best of --rounds counts. Needs root for the control group, numpy and h5py.
"""
import argparse
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from write_bench import REPO, make_source, size_of, sync

GROUP = Path("/sys/fs/cgroup/memory/reap_quantize_bench")


class MemoryGroup:
    """Commands that may use so many GB together, the cached pages of their files included."""

    def __init__(self, gigabytes):
        self.gigabytes = gigabytes

    def __enter__(self):
        GROUP.mkdir(exist_ok=True)
        (GROUP / "memory.limit_in_bytes").write_text(str(int(self.gigabytes * 1e9)))
        return self

    def __exit__(self, *_):
        GROUP.rmdir()

    def seconds(self, command, written):
        shutil.rmtree(written, ignore_errors=True)
        sync(written.parent)
        (GROUP / "memory.force_empty").write_text("0")
        begin = time.monotonic()
        words = ["sh", "-c", 'echo $$ >"$0/tasks"; exec "$@"', GROUP, *command]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sync(written)
        elapsed = time.monotonic() - begin
        size = size_of(written)
        shutil.rmtree(written)
        return elapsed, size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("."))
    parser.add_argument("--build", type=Path, default=REPO / "build/cpu")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--memory", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shard", default="250MB", help="--max-shard-size of the outputs: files are written side by side")
    args = parser.parse_args()
    reap_dist = (args.build / "reap_dist").resolve()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="quantize_bench_") as work, MemoryGroup(args.memory) as group:
        source, written = Path(work) / "source", Path(work) / "written"
        make_source(Path(work), args.layers)
        quantize = [reap_dist, "quantize", "--model", source, "--output", written, "--verify", "0", "--max-shard-size", args.shard]
        commands = {"cp -r": ["cp", "-r", source, written]}
        for method in ("rtn", "default", "opt-rtn"):
            commands[f"quantize {method}"] = [*quantize, "--method", method]
        best, sizes = {}, {}
        for _ in range(args.rounds):
            for name, command in commands.items():
                seconds, sizes[name] = group.seconds(command, written)
                best[name] = min(best.get(name, 1e9), seconds)
        gigabytes = size_of(source) / 1e9
        print(f"{gigabytes:.2f} GB with {args.memory:g} GB of memory, best of {args.rounds}")
        for name, seconds in best.items():
            print(f"{name:<18}{seconds:>7.2f} s  {gigabytes / seconds:.2f} GB/s read  {sizes[name] / 1e9:.2f} GB written  "
                  f"{best['cp -r'] / seconds:.2f} of cp")


if __name__ == "__main__":
    main()
