#!/usr/bin/env python3
"""Strong scaling of the calibration pass: two ranks of one thread each beside one, by grid.

  scaling_bench.py --reap-dist build/cpu/reap_dist --model DIR --calibration FILE [--rounds 3] [--block-tokens 1024]

Every round runs each grid once, one after the other, so that what else the machine does meets all of them. Prints the
medians: tokens per second, the share of twice the rate of one rank, and the idle share of each stage as the program
reports it. Needs mpirun and two free cores.
"""
import argparse
import json
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

GRIDS = {"1 rank": (1, []), "pp2": (2, ["--pp", "2"]), "ep2": (2, ["--ep", "2"]), "dp2": (2, ["--dp", "2"])}


def observe(options, compute, ranks, grid):
    """Tokens per second and idle shares of one pass."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder, "metrics.jsonl")
        command = ["mpirun", "-n", str(ranks), options.reap_dist, "observe", "--model", options.model,
                   "--calibration", options.calibration, "--saliency", str(Path(folder, "saliency.h5")),
                   "--compute", compute, "--block-tokens", str(options.block_tokens), "--threads", "1",
                   "--weights", "resident", "--metrics", str(metrics), *grid]
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if result.returncode != 0:
            raise SystemExit(result.stderr)
        events = [json.loads(line) for line in metrics.read_text().splitlines()]
    rate = next(e["rate"] for e in events if e["event"] == "phase_end" and e["phase"] == "observe")
    idle = re.search(r"idle share by stage: (.*)", result.stderr).group(1)
    return rate, [float(share) for share in re.findall(r"([\d.]+) %", idle)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reap-dist", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--block-tokens", type=int, default=1024)
    options = parser.parse_args()
    print(f"{'compute':8} {'grid':7} {'tokens/s':>9} {'of ideal':>9}  idle by stage")
    for compute in ("fp32", "bf16"):
        runs = {name: [] for name in GRIDS}
        for _ in range(options.rounds):
            for name, (ranks, grid) in GRIDS.items():
                runs[name].append(observe(options, compute, ranks, grid))
        one = statistics.median(rate for rate, _ in runs["1 rank"])
        for name, (ranks, _) in GRIDS.items():
            rate = statistics.median(rate for rate, _ in runs[name])
            idle = [statistics.median(shares) for shares in zip(*(idle for _, idle in runs[name]))]
            text = ", ".join(f"{share:.1f} %" for share in idle)
            print(f"{compute:8} {name:7} {rate:9.0f} {100 * rate / (ranks * one):8.1f} %  {text}", flush=True)


if __name__ == "__main__":
    main()
