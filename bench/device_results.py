#!/usr/bin/env python3
"""What cuda_bench and layer_peer.py have measured in one session, as bench/results/<device>.json and .md.

  python3 bench/device_results.py --ours cuda_bench.log [--peer layer_peer.json] [--out bench/results]

Both files end with a line of JSON. Times of the peer are beside ours for the same number of tokens: a whole layer with the
sums of a calibration pass.
"""
import argparse
import json
import re
from pathlib import Path

PEERS = dict(hooks="routed experts, one after the other, with hooks", grouped="routed experts, torch._grouped_mm",
             all="all experts on every token")


def last_line(path):
    return json.loads(path.read_text(encoding="utf-8").strip().splitlines()[-1])


def operations_table(ours, weights, tokens):
    lines = [f"## Operations with {weights} weights, {tokens:,} tokens, longest first", "",
             "| operation | ms | of the layer | rate | share of the ceiling |", "|---|---|---|---|---|"]
    results = [r for r in ours["results"] if (r["weights"], r["tokens"]) == (weights, tokens)]
    layer = next(r["seconds"] for r in results if r["operation"] == "all")
    for r in sorted(results, key=lambda r: -r["seconds"]):
        scale, unit = (1e12, "TFLOP/s") if r["unit"] == "flop" else (1e9, "GB/s")
        lines.append(f"| {r['operation']} | {r['seconds'] * 1e3:.3f} | {r['seconds'] / layer:.1%} | "
                     f"{r['amount'] / r['seconds'] / scale:,.1f} {unit} | {r['share']:.2f} |")
    return lines + [""]


def layer_table(ours, peer):
    whole = {(r["weights"], r["tokens"]): r["seconds"] for r in ours["results"] if r["operation"] == "all"}
    lines = ["## A whole layer beside PyTorch", "", "| tokens | program | ms | tokens/s | times ours in BF16 |",
             "|---|---|---|---|---|"]
    for tokens in sorted({t for _, t in whole}):
        base = whole[("bf16", tokens)]
        rows = [(f"ours, {weights}", seconds) for (weights, t), seconds in whole.items() if t == tokens]
        rows += [(f"PyTorch {peer['torch']}, bf16: {PEERS[r['method']]}", r["seconds"])
                 for r in (peer["results"] if peer else []) if r["tokens"] == tokens]
        lines += [f"| {tokens:,} | {name} | {seconds * 1e3:.3f} | {tokens / seconds:,.0f} | {seconds / base:.2f} |"
                  for name, seconds in rows]
    return lines + [""]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=Path, required=True)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    args = parser.parse_args()
    ours, peer = last_line(args.ours), last_line(args.peer) if args.peer else None
    if peer and peer["device"] != ours["device"]:
        parser.error(f"the peer ran on {peer['device']}, not on {ours['device']}")
    lines = [f"# {ours['device']}", "",
             "One MiniMax-M2 layer with random weights, samples of 2,048 tokens; medians. Ceilings measured in the same run: a cuBLAS",
             f"product in bf16 {ours['product_flops'] / 1e12:,.1f} TFLOP/s, a copy on the device {ours['copy_bytes'] / 1e9:,.1f} GB/s.", ""]
    lines += layer_table(ours, peer)
    for weights, tokens in dict.fromkeys((r["weights"], r["tokens"]) for r in ours["results"]):
        lines += operations_table(ours, weights, tokens)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / re.sub(r"[^a-z0-9]+", "-", ours["device"].lower()).strip("-")
    path.with_suffix(".json").write_text(json.dumps(dict(ours=ours, peer=peer), indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")
    print(path.with_suffix(".md"))


if __name__ == "__main__":
    main()
