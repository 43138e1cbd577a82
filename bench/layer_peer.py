#!/usr/bin/env python3
"""One MiniMax-M2 layer at its real dimensions in PyTorch, with the sums of a calibration pass, as users would write it.

  python3 bench/layer_peer.py [--tokens 2048 16384] [--seconds 1] [--device cuda] [--json FILE]
  python3 bench/layer_peer.py --tiny --check            # on any machine: do the methods agree?

The peer of bench/cuda_bench: the same shapes, random BF16 weights, samples of 2,048 tokens, no torch.compile. The layer is
timed with three ways to compute the experts and to sum, per expert, count and gate value times norm of the output:
  hooks     the experts that are routed to, one module after the other, each with a forward hook
  grouped   the same slots sorted by expert and multiplied by torch._grouped_mm, where this build of torch has it
  all       every expert on every token, as the reference method does
Times are medians; on a GPU between CUDA events. The last line is JSON.
"""
import argparse
import json
import statistics
import time

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError as missing:
    print(f"skipped: {missing}")
    raise SystemExit(77) from missing  # for ctest

REAL = dict(hidden=3072, inner=1536, experts=256, top_k=8, heads=48, kv_heads=8, head_dim=128, rotary=64, sample=2048)
TINY = dict(hidden=64, inner=48, experts=8, top_k=2, heads=4, kv_heads=2, head_dim=16, rotary=8, sample=32)


def random_weight(*shape, device, generator):
    weight = torch.randn(*shape, device=device, dtype=torch.float32, generator=generator)
    return (weight * shape[-1] ** -0.5).to(torch.bfloat16)


def rms_norm(x, weight, eps=1e-6):
    return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps) * weight


class Expert(nn.Module):
    def __init__(self, w13, w2):
        super().__init__()
        self.w13, self.w2 = w13, w2

    def forward(self, x):
        gate, up = F.linear(x, self.w13).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, self.w2)


class Layer:
    def __init__(self, shape, device):
        g = torch.Generator(device=device).manual_seed(1)
        self.shape, self.device = shape, device
        hidden, inner, experts = shape["hidden"], shape["inner"], shape["experts"]
        q, kv = shape["heads"] * shape["head_dim"], shape["kv_heads"] * shape["head_dim"]
        make = lambda *size: random_weight(*size, device=device, generator=g)
        self.qkv, self.o = make(q + 2 * kv, hidden), make(hidden, q)
        self.w13, self.w2 = make(experts, 2 * inner, hidden), make(experts, hidden, inner)
        self.gate = make(experts, hidden).float()
        self.bias = torch.zeros(experts, device=device)
        self.norms = {n: torch.ones(w, device=device) for n, w in (("in", hidden), ("post", hidden), ("q", q), ("k", kv))}
        self.widths = (q, kv, kv)
        self.experts = [Expert(self.w13[e], self.w2[e]) for e in range(experts)]  # views: no second copy
        angle = torch.outer(torch.arange(shape["sample"], device=device, dtype=torch.float64),
                            5e6 ** (-torch.arange(0, shape["rotary"], 2, device=device, dtype=torch.float64) / shape["rotary"]))
        self.cos, self.sin = angle.cos().float(), angle.sin().float()
        self.clear()

    def clear(self):
        experts = self.shape["experts"]
        self.count = torch.zeros(experts, dtype=torch.int64, device=self.device)
        self.gate_norm = torch.zeros(experts, dtype=torch.float64, device=self.device)

    def rotate(self, x):  # [samples, length, heads, head_dim]
        rotary, half = self.shape["rotary"], self.shape["rotary"] // 2
        cos, sin = self.cos[: x.shape[1], None], self.sin[: x.shape[1], None]
        a, b = x[..., :half], x[..., half:rotary]
        return torch.cat((a * cos - b * sin, b * cos + a * sin, x[..., rotary:]), -1)

    def attention(self, x):
        s = self.shape
        tokens, length = x.shape[0], min(x.shape[0], s["sample"])
        h = rms_norm(x, self.norms["in"]).to(torch.bfloat16)
        q, k, v = F.linear(h, self.qkv).split(self.widths, -1)
        q, k = rms_norm(q.float(), self.norms["q"]), rms_norm(k.float(), self.norms["k"])
        split = lambda y: y.view(tokens // length, length, -1, s["head_dim"])
        q, k = (self.rotate(split(y)).to(torch.bfloat16).transpose(1, 2) for y in (q, k))
        out = F.scaled_dot_product_attention(q, k, split(v).transpose(1, 2), is_causal=True, enable_gqa=True)
        return x + F.linear(out.transpose(1, 2).reshape(tokens, -1), self.o)

    def route(self, h):
        score = torch.sigmoid(F.linear(h, self.gate))
        chosen = torch.topk(score + self.bias, self.shape["top_k"], dim=-1).indices
        value = score.gather(1, chosen)
        return chosen, value / value.sum(-1, keepdim=True)

    def by_hooks(self, h, chosen, value):
        out = torch.zeros_like(h, dtype=torch.float32)
        now = {}

        def hook(_, __, f):
            norm = torch.linalg.vector_norm(f.float(), dim=-1)
            self.count[now["expert"]] += f.shape[0]
            self.gate_norm[now["expert"]] += (now["gate"] * norm).double().sum()

        handles = [expert.register_forward_hook(hook) for expert in self.experts]
        for e in torch.unique(chosen).tolist():
            rows, place = torch.where(chosen == e)
            now.update(expert=e, gate=value[rows, place])
            f = self.experts[e](h[rows])
            out.index_add_(0, rows, f.float() * now["gate"][:, None])
        for handle in handles:
            handle.remove()
        return out

    def by_groups(self, h, chosen, value):
        order = torch.argsort(chosen.flatten(), stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=self.shape["experts"])
        ends = counts.cumsum(0).to(torch.int32)
        rows = order // self.shape["top_k"]
        gate, up = torch._grouped_mm(h[rows], self.w13.transpose(1, 2), offs=ends).chunk(2, dim=-1)
        f = torch._grouped_mm(F.silu(gate) * up, self.w2.transpose(1, 2), offs=ends).float()
        weighted = value.flatten()[order]
        self.count += counts
        self.gate_norm.index_add_(0, chosen.flatten()[order],
                                  (weighted * torch.linalg.vector_norm(f, dim=-1)).double())
        out = torch.zeros_like(h, dtype=torch.float32)
        return out.index_add_(0, rows, f * weighted[:, None])

    def by_all(self, h, chosen, value):
        out = torch.zeros_like(h, dtype=torch.float32)
        for e, expert in enumerate(self.experts):
            f = expert(h).float()
            gate = torch.where(chosen == e, value, 0.0).sum(-1)
            self.count[e] += (chosen == e).sum()
            self.gate_norm[e] += (gate * torch.linalg.vector_norm(f, dim=-1)).double().sum()
            out += f * gate[:, None]
        return out

    @torch.no_grad()
    def run(self, x, experts):
        x = self.attention(x)
        h = rms_norm(x, self.norms["post"])
        return x + experts(h.to(torch.bfloat16), *self.route(h))


def measure(work, device, seconds):
    """The median time over at least three runs, after one that is not counted."""
    work()
    times = []
    while len(times) < 3 or sum(times) < seconds:
        if device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) * 1e-3)
        else:
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def has_groups(device):
    if not hasattr(torch, "_grouped_mm"):
        return False
    try:
        a = torch.ones(32, 32, dtype=torch.bfloat16, device=device)
        torch._grouped_mm(a, a[None].transpose(1, 2), offs=torch.tensor([32], dtype=torch.int32, device=device))
        return True
    except (RuntimeError, NotImplementedError):
        return False


def check(layer, methods, x):
    """The methods see the same slots, and their sums differ by the rounding of bf16 only."""
    sums = {}
    for name, experts in methods.items():
        layer.clear()
        layer.run(x, experts)
        sums[name] = layer.count.clone(), layer.gate_norm.clone()
    count, gate_norm = sums["hooks"]
    assert count.sum() == x.shape[0] * layer.shape["top_k"]
    for name, (other_count, other) in sums.items():
        assert torch.equal(other_count, count), name
        difference = ((other - gate_norm).abs() / gate_norm.clamp_min(1e-9)).max().item()
        assert difference < 1e-2, (name, difference)
        print(f"{name}: sums of every expert within {difference:.1e} of those by hooks")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+")
    parser.add_argument("--methods", nargs="+", default=["hooks", "grouped", "all"])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="a small layer, for a try")
    parser.add_argument("--check", action="store_true", help="compare what the methods sum, and time nothing")
    parser.add_argument("--json", help="a file for the last line")
    args = parser.parse_args()
    shape = TINY if args.tiny else REAL
    layer = Layer(shape, args.device)
    methods = {"hooks": layer.by_hooks, "grouped": layer.by_groups, "all": layer.by_all}
    methods = {name: methods[name] for name in args.methods if name != "grouped" or has_groups(args.device)}
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    results = []
    for tokens in args.tokens or [shape["sample"], 8 * shape["sample"]]:
        if tokens % min(tokens, shape["sample"]):
            parser.error(f"{tokens} tokens are not whole samples of {shape['sample']}")
        x = torch.randn(tokens, shape["hidden"], device=args.device, generator=torch.Generator(args.device).manual_seed(2))
        if args.check:
            check(layer, methods, x)
            continue
        for method, experts in methods.items():
            seconds = measure(lambda: layer.run(x, experts), args.device, args.seconds)
            results.append(dict(weights="bf16", tokens=tokens, method=method, seconds=float(f"{seconds:.4g}")))
            print(f"{name}, {tokens} tokens, {method}: {seconds * 1e3:.3f} ms", flush=True)
    line = json.dumps(dict(device=name, torch=torch.__version__, tiny=args.tiny, results=results))
    print(line)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
