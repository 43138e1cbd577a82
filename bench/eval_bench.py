#!/usr/bin/env python3
"""One evaluation of many plans beside as many evaluations of one plan each, in processor time.

  python3 bench/eval_bench.py --model MODEL --heldout heldout.h5 --saliency saliency.h5 [--build build/cpu] [--plans 24]
                              [--samples-per-domain 2] [--weights stream|resident]

Each evaluation takes the unpruned model's predictions as well, to compare with: one of N plans runs the model N + 1 times and
reads the weights once, N of one plan run it 2 N times and read them N times.
"""
import argparse
import resource
import subprocess
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent


def cpu_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--heldout", type=Path, required=True)
    parser.add_argument("--saliency", type=Path, required=True)
    parser.add_argument("--build", type=Path, default=REPO / "build/cpu")
    parser.add_argument("--plans", type=int, default=24)
    parser.add_argument("--samples-per-domain", default="2")
    parser.add_argument("--weights", default="resident")
    args = parser.parse_args()
    program = args.build / "reap_dist"
    evaluate = [program, "eval", "--model", args.model, "--heldout", args.heldout, "--compute", "fp32", "--threads", "1",
                "--samples-per-domain", args.samples_per_domain, "--weights", args.weights]
    with tempfile.TemporaryDirectory() as folder:
        plans = [Path(folder) / f"random-{seed}.plan.json" for seed in range(args.plans)]
        for seed, plan in enumerate(plans):
            subprocess.run([program, "plan", "--saliency", args.saliency, "--ratio", "0.25", "--criterion", "random",
                            "--seed", str(seed), "--plan", plan], check=True, stdout=subprocess.DEVNULL)
        together = cpu_seconds([*evaluate, "--plan", *plans])
        apart = sum(cpu_seconds([*evaluate, "--plan", plan]) for plan in plans)
    print(f"{args.plans} plans together {together:.1f} s, one by one {apart:.1f} s of processor time: "
          f"{together / apart:.2f} of it ({args.weights} weights)")


if __name__ == "__main__":
    main()
