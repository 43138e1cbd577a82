"""Files of conversations and texts -> samples: what `reap-tools calibrate` does, source after source."""

from __future__ import annotations

import importlib.metadata
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reap_tools import __version__
from reap_tools.calibration_file import ORIGIN_COLUMNS, read_origins
from reap_tools.chat import tools_from
from reap_tools.checkpoint import Checkpoint
from reap_tools.documents import Document, Renderer
from reap_tools.draw import Numbers, draw_order
from reap_tools.errors import BadInputError, RowError
from reap_tools.progress import Progress, say
from reap_tools.readers import Row, RowFile, file_sha256, find_files, open_rows
from reap_tools.samples import Cutter, Sample, Seen
from reap_tools.settings import Settings, Source

_BATCH = 4096  # rows read at a time: a row group of a Parquet file is read once for all of them
_PIECE = 256  # of these, rendered and tokenised at a time
_MARGIN = 64  # rows read beyond those that are surely needed
_SHOWN = 5  # bad rows that are named

_WHY = {
    "bad": "bad rows",
    "excluded": "rows of --exclude",
    "duplicate": "duplicates",
    "short": "shorter than --min-tokens",
    "long": "longer than --max-tokens",
}


@dataclass
class Taken:
    """What one source gave."""

    source: Source
    files: list[RowFile]
    first_file: int  # number of its first file among those of all sources
    samples: list[Sample] = field(default_factory=list)
    rows_read: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(len(file.numbers) for file in self.files)

    @property
    def tokens(self) -> int:
        """Tokens of all samples."""
        return sum(len(sample.tokens) for sample in self.samples)

    def losses(self) -> str:
        """What was left out, in words; empty when nothing was."""
        return ", ".join(f"{self.skipped[kind]} {why}" for kind, why in _WHY.items() if self.skipped[kind])


def _resolve(sources: tuple[Source, ...]) -> list[list[tuple[Path, str]]]:
    """The files of every source; one error names all that are missing."""
    found = [find_files(source.path) for source in sources]
    missing = [source for source, files in zip(sources, found, strict=True) if not files]
    if missing:
        each = [f"{source.path}{f' ({source.obtain})' if source.obtain else ''}" for source in missing]
        raise FileNotFoundError(
            2, "no such file; get it first" if missing[0].obtain else "no such file", "; ".join(each)
        )
    return found


def _read_tools(source: Source) -> list[dict[str, Any]] | None:
    if source.tools is None:
        return None
    try:
        return tools_from(json.loads(source.tools.read_text(encoding="utf-8")))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInputError(f"{source.tools}: is not JSON: {error}") from None
    except RowError as error:
        raise BadInputError(f"{source.tools}: {error}") from None


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A row in its turn: its place, and what it turned out to be."""

    file: int
    number: int
    content: Document | RowError
    tokens: list[int]


class Collector:
    """Takes the samples of one source after the other."""

    def __init__(self, settings: Settings, checkpoint: Checkpoint) -> None:
        self._settings = settings
        self._checkpoint = checkpoint
        self._seen = Seen()
        self._excluded = {row for path in settings.exclude for row in read_origins(path)}

    def collect(self) -> list[Taken]:
        """All sources."""
        settings = self._settings
        targets = settings.targets()
        found = _resolve(settings.sources)
        taken: list[Taken] = []
        for source, files, target in zip(settings.sources, found, targets, strict=True):
            plain = source.format == "text"
            opened = [open_rows(path, name, plain=plain) for path, name in files]
            this = Taken(source, opened, sum(len(each.files) for each in taken))
            self._take(this, target)
            taken.append(this)
        return taken

    def _take(self, taken: Taken, target: int | None) -> None:
        source = taken.source
        renderer = Renderer(source, self._checkpoint.template, _read_tools(source))
        cutter = Cutter(self._settings, taken.skipped)
        with Progress(source.domain, target or taken.rows, "samples" if target else "rows") as progress:
            for candidate in self._candidates(taken, renderer, target):
                taken.rows_read += 1
                self._add(taken, candidate, cutter)
                progress.to(min(len(taken.samples), target) if target else taken.rows_read)
                if target and len(taken.samples) >= target:
                    break
            else:
                self._keep_new(taken, cutter.rest())
        if target is None and not taken.samples:
            raise BadInputError(self._too_few(taken, "all"))
        if target is not None:
            if len(taken.samples) < target:
                raise BadInputError(self._too_few(taken, str(target)))
            del taken.samples[target:]

    def _too_few(self, taken: Taken, wanted: str) -> str:
        losses = f" ({taken.losses()})" if taken.losses() else ""
        return (
            f"{taken.source.path}: domain '{taken.source.domain}' asks for {wanted} samples, but its {taken.rows} rows "
            f"give {len(taken.samples)}{losses}"
        )

    def _candidates(self, taken: Taken, renderer: Renderer, target: int | None) -> Iterator[_Candidate]:
        """Rows in the order of the draw, in batches; how large those are changes nothing but the time."""
        file_of, numbers = self._draw(taken)
        begin = 0
        while begin < len(numbers):
            missing = _BATCH if target is None else target - len(taken.samples) + _MARGIN
            end = begin + min(missing, _BATCH)
            yield from self._batch(taken, renderer, file_of[begin:end], numbers[begin:end])
            begin = end

    def _draw(self, taken: Taken) -> tuple[Numbers, Numbers]:
        file_of, numbers = draw_order(taken.files, self._settings.seed, self._settings.sampling)
        if not self._excluded:
            return file_of, numbers
        digests = [file.sha256 for file in taken.files]
        keep = np.array(
            [(digests[f], int(n)) not in self._excluded for f, n in zip(file_of, numbers, strict=True)], np.bool_
        )
        taken.skipped["excluded"] += int(len(keep) - keep.sum())
        return file_of[keep], numbers[keep]

    def _batch(self, taken: Taken, renderer: Renderer, file_of: Numbers, numbers: Numbers) -> Iterator[_Candidate]:
        rows = _fetch(taken.files, file_of, numbers)
        for begin in range(0, len(rows), _PIECE):
            contents = [_render(renderer, row) for row in rows[begin : begin + _PIECE]]
            for i, (content, tokens) in enumerate(zip(contents, self._encode(contents), strict=True), begin):
                yield _Candidate(int(file_of[i]), int(numbers[i]), content, tokens)

    def _encode(self, contents: list[Document | RowError]) -> list[list[int]]:
        """The tokens of each document; none for errors."""
        tokens: list[list[int]] = [[] for _ in contents]
        for chat in (True, False):
            documents = {i: each for i, each in enumerate(contents) if isinstance(each, Document) and each.chat == chat}
            texts = [document.text for document in documents.values()]
            special = self._settings.special_tokens and not chat
            for i, ids in zip(documents, self._checkpoint.encode(texts, special_tokens=special), strict=True):
                tokens[i] = ids
        return tokens

    def _add(self, taken: Taken, candidate: _Candidate, cutter: Cutter) -> None:
        settings, content = self._settings, candidate.content
        where = taken.files[candidate.file].where(candidate.number)
        if isinstance(content, RowError):
            if settings.bad_rows == "error":
                raise BadInputError(f"{where}: {content}; --bad-rows skip leaves such rows out")
            taken.skipped["bad"] += 1
            if taken.skipped["bad"] <= _SHOWN:
                say(f"reap-tools: left out: {where}: {content}")
            return
        self._check_vocabulary(where, candidate.tokens)
        if not settings.keep_duplicates and not self._seen.new_text(content.text):
            taken.skipped["duplicate"] += 1
            return
        separator = self._checkpoint.separator(settings.separator, chat=content.chat) if settings.pack else []
        file = taken.first_file + candidate.file
        self._keep_new(taken, cutter.add(candidate.tokens, file, candidate.number, separator))

    def _check_vocabulary(self, where: str, tokens: list[int]) -> None:
        if not tokens:
            raise BadInputError(f"{where}: the tokenizer makes no tokens of it; leave the row out")
        if max(tokens) < self._checkpoint.vocab_size:
            return
        position = next(i for i, token in enumerate(tokens) if token >= self._checkpoint.vocab_size)
        raise BadInputError(
            f"{where}: token {tokens[position]} at position {position} is beyond the model's vocabulary of "
            f"{self._checkpoint.vocab_size}; tokenizer.json and config.json do not belong together"
        )

    def _keep_new(self, taken: Taken, samples: list[Sample]) -> None:
        for sample in samples:
            if self._settings.keep_duplicates or self._seen.new_sample(sample):
                taken.samples.append(sample)
            else:
                taken.skipped["duplicate"] += 1


def _fetch(files: list[RowFile], file_of: Numbers, numbers: Numbers) -> list[Row | RowError]:
    """Rows in the order asked for; each file is read from front to back."""
    rows: list[Row | RowError] = [""] * len(numbers)
    order = np.lexsort((numbers, file_of))
    for i in np.unique(file_of):
        places = order[file_of[order] == i]
        for place, row in zip(places, files[i].take(numbers[places].tolist()), strict=True):
            rows[place] = row
    return rows


def _render(renderer: Renderer, row: Row | RowError) -> Document | RowError:
    if isinstance(row, RowError):
        return row
    try:
        return renderer(row)
    except RowError as error:
        return error


def provenance(settings: Settings, checkpoint: Checkpoint, taken: list[Taken]) -> dict[str, Any]:
    """How the samples came to be, for the attribute `source`. No times, no hosts, no folders: the same inputs give
    the same bytes."""
    template = checkpoint.template
    return {
        "made_by": {
            "reap-tools": __version__,
            **{name: importlib.metadata.version(name) for name in ("tokenizers", "jinja2")},
        },
        "recipe": settings.recipe,
        "settings": {
            "seed": settings.seed,
            "samples": settings.samples,
            "max_tokens": settings.max_tokens,
            "min_tokens": settings.min_tokens,
            "long": settings.long,
            "pack": settings.pack,
            "separator": settings.separator if settings.pack else None,
            "sampling": settings.sampling,
            "keep_duplicates": settings.keep_duplicates,
            "bad_rows": settings.bad_rows,
            "special_tokens": settings.special_tokens,
            "template_args": settings.template_args,
            "date": settings.date,
            "excluded_rows_of": [{"name": path.name, "sha256": file_sha256(path)} for path in settings.exclude],
        },
        "tokenizer": {"sha256": checkpoint.tokenizer_sha256, "vocab_size": checkpoint.vocab_size},
        "template": {"file": template.name, "sha256": template.sha256} if template else None,
        "origin_columns": ORIGIN_COLUMNS,
        "sources": [_describe(each) for each in taken],
    }


def _describe(taken: Taken) -> dict[str, Any]:
    source = taken.source
    return {
        "domain": source.domain,
        "dataset": source.dataset,
        "asked": str(source.amount),
        "format": source.format,
        "field": source.field,
        "tools_sha256": None if source.tools is None else file_sha256(source.tools),
        "rows": taken.rows,
        "rows_read": taken.rows_read,
        "left_out": {kind: count for kind, count in sorted(taken.skipped.items()) if count},
        "samples": len(taken.samples),
        "tokens": taken.tokens,
        "files": [
            {"number": taken.first_file + i, "name": file.name, "sha256": file.sha256, "rows": len(file.numbers)}
            for i, file in enumerate(taken.files)
        ],
    }
