"""The order in which the rows of a source are visited.

Each row has a ticket, SHA-256 of "<seed>:<SHA-256 of the file>:<number of the row>", and rows come in the order of
their tickets. So the order depends on the seed and the data only, on no generator of any library; it does not change
when sources are added or files renamed, and the first 64 rows drawn are the first 64 of 4,096.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reap_tools.readers import RowFile

Numbers = npt.NDArray[np.int64]


def ticket(seed: int, file_sha256: str, number: int) -> int:
    """The first 64 bits of a row's ticket."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{file_sha256}:{number}".encode()).digest()[:8], "big")


def draw_order(files: Sequence[RowFile], seed: int, sampling: str) -> tuple[Numbers, Numbers]:
    """(index into files, number of the row) of all rows; `first` keeps the order of the files."""
    file_of = np.concatenate([np.full(len(file.numbers), i, np.int64) for i, file in enumerate(files)])
    number = np.concatenate([file.numbers for file in files])
    if sampling == "first":
        return file_of, number
    tickets = np.fromiter(
        (ticket(seed, file.sha256, int(row)) for file in files for row in file.numbers), np.uint64, len(number)
    )
    order = np.argsort(tickets, kind="stable")
    return file_of[order], number[order]
