"""Recipes: TOML files that name data sets, amounts and settings. Some come with the package."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

from reap_tools.errors import BadInputError, UsageError
from reap_tools.settings import Amount, Settings, Source, check_domain

_FOLDER = Path(str(resources.files("reap_tools"))) / "recipes"
_ABOUT = {"title", "notes", "cites"}
_SETTINGS = {each.name for each in fields(Settings)} - {"sources", "recipe", "template", "exclude"}
_SOURCE = {"path", "domain", "count", "format", "field", "tools", "dataset", "obtain", "licence"}
# TOML has types; a setting has to be of its own.
_TYPES: dict[str, type] = {
    "samples": int, "seed": int, "max_tokens": int, "min_tokens": int, "long": str, "pack": bool, "separator": str,
    "sampling": str, "keep_duplicates": bool, "bad_rows": str, "special_tokens": bool, "template_args": dict,
    "date": str,
}  # fmt: skip


def names() -> list[str]:
    """Recipes that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def locate(name: str) -> Path:
    """The file of a recipe: one of the package by name, or a path."""
    if name in names():
        return _FOLDER / f"{name}.toml"
    path = Path(name)
    if path.suffix == ".toml":
        return path
    raise UsageError(f"--recipe {name}: neither a TOML file nor one of {', '.join(names())}")


def read(path: Path) -> dict[str, Any]:
    """The table of a recipe, its keys checked."""
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: is not TOML: {error}") from None
    _check_keys(path, "the recipe", table, _ABOUT | _SETTINGS | {"source"})
    for name, value in table.items():
        if name in _TYPES and type(value) is not _TYPES[name]:
            raise BadInputError(f"{path}: {name} has to be of type {_TYPES[name].__name__}")
    if not isinstance(table.get("source"), list) or not all(isinstance(each, dict) for each in table["source"]):
        raise BadInputError(f"{path}: has no [[source]]")
    for i, source in enumerate(table["source"]):
        _check_keys(path, f"source {i + 1}", source, _SOURCE)
        missing = {"path", "domain", "count"} - source.keys()
        if missing:
            raise BadInputError(f"{path}: source {i + 1} lacks {', '.join(sorted(missing))}")
        for name, value in source.items():
            if not isinstance(value, str) and name != "count":
                raise BadInputError(f"{path}: source {i + 1}: {name} has to be text")
    return table


def _check_keys(path: Path, what: str, table: dict[str, Any], known: set[str]) -> None:
    if unknown := sorted(table.keys() - known):
        raise BadInputError(f"{path}: {what} has an unknown key '{unknown[0]}'; known are {', '.join(sorted(known))}")


def load(name: str, data: Path | None) -> dict[str, Any]:
    """The settings of a recipe, with sources under the folder `data`; by default that of a recipe of one's own."""
    path = locate(name)
    table = read(path)
    if data is None:
        if path.parent == _FOLDER:
            needed = ", ".join(str(source["path"]) for source in table["source"])
            raise UsageError(f"--recipe {name} needs --data DIR, the folder that holds {needed}")
        data = path.parent
    sources = tuple(
        Source(
            path=str(data / str(each["path"])),
            domain=check_domain(str(each["domain"])),
            amount=Amount.parse(str(each["count"])),
            format=str(each.get("format", "auto")),
            field=each.get("field"),
            tools=path.parent / each["tools"] if "tools" in each else None,
            dataset=each.get("dataset"),
            obtain=str(each["obtain"]).replace("{data}", str(data)) if "obtain" in each else None,
        )
        for each in table["source"]
    )
    settings = {key: value for key, value in table.items() if key in _SETTINGS}
    return settings | {"sources": sources, "recipe": path.stem}


def describe(name: str) -> str:
    """A recipe as its file says it."""
    return locate(name).read_text(encoding="utf-8")


def overview() -> str:
    """All recipes of the package, a line each."""
    return "\n".join(f"{name:24} {read(_FOLDER / f'{name}.toml')['title']}" for name in names())
