#!/usr/bin/env python3
"""Writes a random checkpoint in the MiniMax-M2 layout, of any size, and a calibration file for it.

  random_checkpoint.py --out DIR --layers 1 --experts 32 --top-k 8 --hidden 3072 --inter 1536 --heads 48 --kv-heads 8 \
                       --head-dim 128 --rotary-dim 64 --vocab 2048 [--fp8] [--calibration FILE --samples 32 --length 512]

Needs numpy, and h5py for the calibration file. One layer is in memory at a time.
"""
import argparse
import json
import struct
from pathlib import Path

import numpy as np

BLOCK = 128  # rows and columns that share one FP8 scale


def e4m3_values():
    """The 127 non-negative finite e4m3 numbers; a number's place is its code."""
    codes = np.arange(127)
    exponent, fraction = codes >> 3, codes & 7
    return np.where(exponent == 0, fraction / 8 * 2.0**-6, (1 + fraction / 8) * 2.0 ** (exponent - 7))


class Shard:
    """One safetensors file in the making."""

    def __init__(self):
        self.header, self.parts, self.size = {}, [], 0

    def add(self, name, dtype, shape, data):
        raw = np.ascontiguousarray(data).tobytes()
        self.header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [self.size, self.size + len(raw)]}
        self.parts.append(raw)
        self.size += len(raw)

    def write(self, path):
        text = json.dumps({"__metadata__": {"format": "pt"}, **self.header}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for part in self.parts:
                f.write(part)


class Writer:
    def __init__(self, args):
        self.a = args
        self.rng = np.random.default_rng(args.seed)
        self.out = Path(args.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.shards, self.weight_map, self.total = 0, {}, 0
        self.e4m3 = e4m3_values()

    def normal(self, *shape, std=0.05):
        return self.rng.standard_normal(shape, dtype=np.float32) * np.float32(std)

    def bf16(self, shard, name, values):
        bits = values.astype(np.float32).view(np.uint32)
        shard.add(name, "BF16", values.shape, ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16))

    def weight(self, shard, name, rows, cols):
        values = self.normal(rows, cols, std=cols**-0.5)
        if not self.a.fp8:
            return self.bf16(shard, name, values)
        blocks = (-(-rows // BLOCK), -(-cols // BLOCK))
        scale = (5 * cols**-0.5 / 448 * self.rng.uniform(0.5, 2, blocks)).astype(np.float32)
        scaled = values / np.repeat(np.repeat(scale, BLOCK, 0)[:rows], BLOCK, 1)[:, :cols]
        middles = (self.e4m3[1:] + self.e4m3[:-1]) / 2
        codes = np.searchsorted(middles, np.abs(scaled)).astype(np.uint8) | ((scaled < 0).astype(np.uint8) << 7)
        shard.add(name, "F8_E4M3", (rows, cols), codes)
        shard.add(name + "_scale_inv", "F32", blocks, scale)

    def finish(self, shard):
        name = f"model-{self.shards:05d}.safetensors"
        self.shards += 1
        shard.write(self.out / name)
        self.weight_map.update({tensor: name for tensor in shard.header})
        self.total += shard.size

    def layer(self, index):
        a, shard, p = self.a, Shard(), f"model.layers.{index}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            self.bf16(shard, f"{p}{norm}.weight", 1 + self.normal(a.hidden, std=0.2))
        q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
        for name, rows, cols in (("q", q, a.hidden), ("k", kv, a.hidden), ("v", kv, a.hidden), ("o", a.hidden, q)):
            self.weight(shard, f"{p}self_attn.{name}_proj.weight", rows, cols)
        self.bf16(shard, f"{p}self_attn.q_norm.weight", 1 + self.normal(q, std=0.2))
        self.bf16(shard, f"{p}self_attn.k_norm.weight", 1 + self.normal(kv, std=0.2))
        moe = p + "block_sparse_moe."
        shard.add(moe + "gate.weight", "F32", (a.experts, a.hidden), self.normal(a.experts, a.hidden))
        shard.add(moe + "e_score_correction_bias", "F32", (a.experts,), self.normal(a.experts, std=0.1))
        for e in range(a.experts):
            for name, rows, cols in (("w1", a.inter, a.hidden), ("w3", a.inter, a.hidden), ("w2", a.hidden, a.inter)):
                self.weight(shard, f"{moe}experts.{e}.{name}.weight", rows, cols)
        self.finish(shard)

    def config(self):
        a = self.a
        c = {"architectures": ["MiniMaxM2ForCausalLM"], "attn_type_list": [1] * a.layers, "head_dim": a.head_dim,
             "hidden_act": "silu", "hidden_size": a.hidden, "intermediate_size": a.inter,
             "max_position_embeddings": 196608, "model_type": "minimax_m2", "num_attention_heads": a.heads,
             "num_experts_per_tok": a.top_k, "num_hidden_layers": a.layers, "num_key_value_heads": a.kv_heads,
             "num_local_experts": a.experts, "num_mtp_modules": 0, "qk_norm_type": "per_layer", "rms_norm_eps": 1e-06,
             "rope_theta": 5000000, "rotary_dim": a.rotary_dim, "scoring_func": "sigmoid", "shared_intermediate_size": 0,
             "tie_word_embeddings": False, "use_qk_norm": True, "use_routing_bias": True, "vocab_size": a.vocab}
        if a.fp8:
            c["quantization_config"] = {"activation_scheme": "dynamic", "fmt": "float8_e4m3fn", "quant_method": "fp8",
                                        "weight_block_size": [BLOCK, BLOCK]}
        return c

    def write(self):
        a, shard = self.a, Shard()
        self.bf16(shard, "model.embed_tokens.weight", self.normal(a.vocab, a.hidden, std=0.3))
        self.finish(shard)
        for index in range(a.layers):
            self.layer(index)
        shard = Shard()
        self.bf16(shard, "model.norm.weight", 1 + self.normal(a.hidden, std=0.2))
        self.bf16(shard, "lm_head.weight", self.normal(a.vocab, a.hidden))
        self.finish(shard)
        index = {"metadata": {"total_size": self.total}, "weight_map": dict(sorted(self.weight_map.items()))}
        (self.out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
        (self.out / "config.json").write_text(json.dumps(self.config(), indent=1))


def write_calibration(path, vocab, samples, length, seed):
    import h5py

    tokens = np.random.default_rng(seed).integers(0, vocab, samples * length, dtype=np.int32)
    with h5py.File(path, "w") as f:
        f.attrs["schema"] = "reap-calibration-1"
        f["tokens"] = tokens
        f["offsets"] = np.arange(samples + 1, dtype=np.int64) * length


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    for name, default in (("layers", 2), ("experts", 8), ("top-k", 2), ("hidden", 64), ("inter", 32), ("heads", 4),
                          ("kv-heads", 2), ("head-dim", 16), ("rotary-dim", 8), ("vocab", 128), ("seed", 1),
                          ("samples", 16), ("length", 128)):
        parser.add_argument("--" + name, type=int, default=default)
    parser.add_argument("--fp8", action="store_true")
    parser.add_argument("--calibration")
    args = parser.parse_args()
    Writer(args).write()
    if args.calibration:
        write_calibration(args.calibration, args.vocab, args.samples, args.length, args.seed)


if __name__ == "__main__":
    main()
