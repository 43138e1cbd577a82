"""Writes the HDF5 files beside it: encodings that other writers produce, and files that lie. Needs h5py."""
from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).parent
TOKENS = np.arange(12, dtype=np.int32) * 3
OFFSETS = np.array([0, 5, 6, 12], dtype=np.int64)
DOMAIN = np.array([0, 1, 1], dtype=np.uint8)


def create(name):
    return h5py.File(HERE / name, "w", libver=("earliest", "v110"))


def space_padded(f, name, text):
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(text))
    kind.set_strpad(h5py.h5t.STR_SPACEPAD)
    attribute = h5py.h5a.create(f.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))
    attribute.write(np.array(text, dtype=f"S{len(text)}"), mtype=kind)


# A calibration file as a careful user of h5py might write it: compressed, resizable, big-endian, texts of fixed length.
with create("calibration_chunked.h5") as f:
    f.create_dataset("tokens", data=TOKENS.astype(">i4"), chunks=(5,), maxshape=(None,), compression="gzip", shuffle=True)
    f.create_dataset("offsets", data=OFFSETS, chunks=(4,), fletcher32=True)
    f.create_dataset("domain", data=DOMAIN, chunks=(3,), compression="gzip")
    f.attrs["schema"] = np.bytes_("reap-calibration-1")
    f.attrs["domains"] = np.array([b"short", b"a longer one"])
    space_padded(f, "tokenizer_sha256", "abc   ")

# The same samples, the plainest way; nothing that is optional.
with create("calibration_plain.h5") as f:
    f["tokens"], f["offsets"] = TOKENS, OFFSETS
    f.attrs["schema"] = "reap-calibration-1"

with create("attributes.h5") as f:
    f.attrs["variable"] = "päper"
    f.attrs["variable_array"] = ["one", "", "three"]
    f.attrs["fixed"] = np.bytes_("fixed")
    f.attrs["fixed_array"] = np.array([b"a", b"bcd"])
    space_padded(f, "space_padded", "padded  ")
    f.attrs["empty"] = h5py.Empty("S1")
    f.attrs["int16"] = np.int16(-7)
    f.attrs["one_element"] = np.array([9], dtype=np.uint64)
    f.attrs["two_elements"] = np.array([1, 2])
    f.attrs["float"] = 1.5

# Data that are not in the file, or not there at all.
with create("elsewhere.h5") as f:
    f.create_dataset("external", shape=(12,), dtype="i4", external=[("/etc/passwd", 0, 48)])
    layout = h5py.VirtualLayout(shape=(12,), dtype="i4")
    layout[:] = h5py.VirtualSource("absent.h5", "tokens", shape=(12,))
    f.create_virtual_dataset("virtual", layout)
    f["outside"] = h5py.ExternalLink("calibration_plain.h5", "/tokens")
    f["soft"] = h5py.SoftLink("/unwritten")
    f["group/inner"] = TOKENS
    f.create_dataset("unwritten", shape=(1 << 40,), dtype="i4")
    f.create_dataset("unwritten_chunks", shape=(1 << 40,), dtype="i4", chunks=(1024,))
    f.create_dataset("bomb", shape=(1 << 40,), dtype="i4", chunks=(1 << 10,), compression="gzip")[:4096] = 1
    f.create_dataset("huge_chunk", shape=(16,), maxshape=(None,), dtype="i4", chunks=(1 << 29,))
    f["scalar"] = np.int32(1)
    f.create_dataset("null", dtype="i4", data=h5py.Empty("i4"))
    f["text"] = "text"
    f["empty"] = np.zeros(0, dtype=np.int32)
    f["compound"] = np.zeros(3, dtype=[("a", "i4"), ("b", "f8")])
