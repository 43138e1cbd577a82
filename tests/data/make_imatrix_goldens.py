#!/usr/bin/env python3
"""Sums of squares of what enters each linear layer, by an independent float64 implementation.

    make_imatrix_goldens.py ORACLE CHECKPOINT TOKENS.h5 OUT.h5

ORACLE is a folder with that implementation (oracle.py, class RefModel). Datasets, as /imatrix of a saliency file but
plain sums, rounded to float32: attention [L, hidden], output [L, heads * head_dim], experts [L, E, hidden], inner [L, E, inner].
Needs torch, h5py and safetensors; the same input gives the same output.
"""
import sys

import h5py
import torch

COMPRESS_FROM = 4096  # bytes; below, a chunk's index costs more than gzip saves


def square_sum(x):
    return x.reshape(-1, x.shape[-1]).square().sum(0)


class Projection:
    """Stands for the weight of o: tells what it is multiplied with."""

    def __init__(self, weight, tell):
        self.weight, self.tell = weight, tell

    @property
    def T(self):
        return self

    def __rmatmul__(self, x):
        self.tell(x)
        return x @ self.weight.T


def imatrix(oracle, checkpoint, sequences):
    model = oracle.RefModel(checkpoint, torch.float64)
    inner = model.T["model.layers.0.block_sparse_moe.experts.0.w1.weight"].shape[0]
    sums = {
        "attention": torch.zeros(model.L, model.H, dtype=torch.float64),
        "output": torch.zeros(model.L, model.NH * model.D, dtype=torch.float64),
        "experts": torch.zeros(model.L, model.E, model.H, dtype=torch.float64),
        "inner": torch.zeros(model.L, model.E, inner, dtype=torch.float64),
    }
    layer_of = {}  # id of a norm's weight -> layer
    for layer in range(model.L):
        prefix = f"model.layers.{layer}."
        layer_of[id(model.T[prefix + "input_layernorm.weight"])] = layer
        name = prefix + "self_attn.o_proj.weight"
        tell = lambda x, layer=layer: sums["output"][layer].add_(square_sum(x))
        model.T[name] = Projection(model.T[name], tell)

    plain_norm, plain_expert = model.norm, model.expert

    def norm(x, weight):
        y = plain_norm(x, weight)
        if id(weight) in layer_of:
            sums["attention"][layer_of[id(weight)]] += square_sum(y)
        return y

    def expert(layer, number, x):
        prefix = f"model.layers.{layer}.block_sparse_moe.experts.{number}."
        gated = torch.nn.functional.silu(x @ model.T[prefix + "w1.weight"].T) * (x @ model.T[prefix + "w3.weight"].T)
        sums["experts"][layer, number] += square_sum(x)
        sums["inner"][layer, number] += square_sum(gated)
        return plain_expert(layer, number, x)

    model.norm, model.expert = norm, expert
    for sequence in sequences:
        model(torch.from_numpy(sequence)[None], lambda *_: None)
    return sums


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    sys.path.insert(0, sys.argv[1])
    import oracle

    torch.set_grad_enabled(False)
    sums = imatrix(oracle, sys.argv[2], oracle.read_tokens(sys.argv[3])[0])
    with h5py.File(sys.argv[4], "w", libver="earliest") as file:
        for name, values in sums.items():
            storage = {}
            if values.nbytes >= COMPRESS_FROM:
                storage = {"chunks": values.shape, "compression": "gzip", "compression_opts": 9, "shuffle": True}
            file.create_dataset(name, data=values.numpy().astype("float32"), track_times=False, **storage)


if __name__ == "__main__":
    main()
