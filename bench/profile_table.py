#!/usr/bin/env python3
"""The kernels of a profile by the time they took, from Nsight Compute's CSV.

  ncu --csv --metrics gpu__time_duration.sum,... PROGRAM > profile.csv; python3 bench/profile_table.py profile.csv
"""
import csv
import sys
from collections import defaultdict

TIME = "gpu__time_duration.sum"
SHARES = {"sm__throughput.avg.pct_of_peak_sustained_elapsed": "SM %",
          "dram__throughput.avg.pct_of_peak_sustained_elapsed": "DRAM %"}
NANOSECONDS = {"nsecond": 1, "ns": 1, "usecond": 1e3, "us": 1e3, "msecond": 1e6, "ms": 1e6, "second": 1e9, "s": 1e9}
MOST = 15


def read(path):
    """By launch: its kernel, and its metrics; times in nanoseconds. Lines before the header are the program's."""
    with open(path, newline="", encoding="utf-8") as file:
        lines = file.readlines()
    first = next(i for i, line in enumerate(lines) if line.startswith('"ID"'))
    launches = defaultdict(dict)
    for row in csv.DictReader(lines[first:]):
        value = float(row["Metric Value"].replace(",", ""))
        if row["Metric Name"] == TIME:
            value *= NANOSECONDS[row["Metric Unit"]]
        launches[row["ID"]]["kernel"] = row["Kernel Name"].split("(")[0]
        launches[row["ID"]][row["Metric Name"]] = value
    return launches.values()


def main():
    by_kernel = defaultdict(list)
    for launch in read(sys.argv[1]):
        by_kernel[launch["kernel"]].append(launch)
    time_of = {kernel: sum(x[TIME] for x in launches) for kernel, launches in by_kernel.items()}
    total = sum(time_of.values())
    print("| kernel | launches | ms | of all | " + " | ".join(SHARES.values()) + " |")
    print("|---" * (4 + len(SHARES)) + "|")
    for kernel in sorted(time_of, key=time_of.get, reverse=True)[:MOST]:
        launches = by_kernel[kernel]
        shares = [sum(x.get(metric, 0) * x[TIME] for x in launches) / time_of[kernel] for metric in SHARES]
        print(f"| {kernel} | {len(launches)} | {time_of[kernel] / 1e6:.3f} | {time_of[kernel] / total:.1%} | "
              + " | ".join(f"{share:.0f}" for share in shares) + " |")


if __name__ == "__main__":
    main()
