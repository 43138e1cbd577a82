"""The command line: `reap-tools calibrate`, `reap-tools recipes` and `reap-tools report`."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reap_tools import recipes
from reap_tools.arguments import command_line
from reap_tools.calibrate import Collector, Taken, provenance
from reap_tools.calibration_file import file_image, write_atomically
from reap_tools.checkpoint import Checkpoint
from reap_tools.errors import BadInputError, ExitCode, ReapToolsError, UsageError
from reap_tools.settings import Settings, Source


def _template_args(given: Sequence[str]) -> dict[str, Any]:
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--template-arg {each}: has to be NAME=VALUE, the value in JSON")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def _settings(arguments: argparse.Namespace) -> Settings:
    """The recipe's settings, if there is one, and what the command line says over them."""
    settings: dict[str, Any] = {}
    if arguments.recipe:
        if arguments.source:
            raise UsageError("--source and --recipe do not go together; write the source into a recipe of your own")
        for name in ("format", "field", "tools"):
            if getattr(arguments, name) is not None:
                raise UsageError(f"--{name} is for --source; in a recipe every source has its own")
        settings = recipes.load(arguments.recipe, arguments.data)
    elif arguments.data:
        raise UsageError("--data is for --recipe; the paths of --source stand for themselves")
    else:
        how = {"format": arguments.format or "auto", "field": arguments.field, "tools": arguments.tools}
        settings["sources"] = tuple(Source.parse(text, **how) for text in arguments.source)
    names = (
        "samples", "seed", "sampling", "keep_duplicates", "bad_rows", "max_tokens", "min_tokens", "long", "pack",
        "separator", "special_tokens", "date", "template",
    )  # fmt: skip
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.template_arg:
        given["template_args"] = settings.get("template_args", {}) | _template_args(arguments.template_arg)
    return Settings(**(settings | given), exclude=tuple(arguments.exclude or ()))


def _table(taken: list[Taken]) -> str:
    lines = [
        f"{'domain':<20} {'samples':>8} {'tokens':>12} {'shortest':>9} {'median':>7} {'longest':>8} {'rows read':>15}"
    ]
    for each in taken:
        lengths = np.array([len(sample.tokens) for sample in each.samples])
        lines.append(
            f"{each.source.domain:<20} {len(lengths):>8} {lengths.sum():>12} {lengths.min():>9} "
            f"{int(np.median(lengths)):>7} {lengths.max():>8} {f'{each.rows_read} of {each.rows}':>15}"
        )
        if losses := each.losses():
            lines.append(f"{'':<20} left out: {losses}")
    total = sum(len(each.samples) for each in taken)
    lines.append(f"{'all':<20} {total:>8} {sum(each.tokens for each in taken):>12}")
    return "\n".join(lines)


def _previews(checkpoint: Checkpoint, taken: list[Taken]) -> str:
    """How the first sample of each domain begins, as the model will see it."""
    lines = []
    for each in taken:
        text = checkpoint.decode(each.samples[0].tokens[:64].tolist())
        lines.append(f"\n[{each.source.domain}] first sample, first tokens:\n{text}")
    return "\n".join(lines)


def _calibrate(arguments: argparse.Namespace) -> None:
    settings = _settings(arguments)
    settings.targets()  # what is wrong with amounts is said before anything is read
    output: Path = arguments.output
    if not arguments.dry_run:
        if output.exists() and not arguments.overwrite:
            raise BadInputError(f"{output}: exists; name another file or give --overwrite")
        if not output.parent.is_dir():
            raise FileNotFoundError(2, "no such folder", str(output.parent))
    checkpoint = Checkpoint(arguments.model, settings)
    taken = Collector(settings, checkpoint).collect()
    print(_table(taken))
    if arguments.dry_run:
        print(_previews(checkpoint, taken))
        return
    attributes: dict[str, str | int] = {
        "tokenizer_sha256": checkpoint.tokenizer_sha256,
        "seed": settings.seed,
        "max_len": settings.max_tokens,
    }
    domains = [(each.source.domain, each.samples) for each in taken]
    write_atomically(output, file_image(domains, attributes, provenance(settings, checkpoint, taken)))
    print(f"written: {output}")


def _report(arguments: argparse.Namespace) -> None:
    # Only here: matplotlib takes half a second to import.
    from reap_tools.report.page import Request, make_report
    from reap_tools.report.read import Given

    if arguments.starved < 1:
        raise UsageError(f"--starved {arguments.starved}: has to be at least 1")
    folder: Path = arguments.folder
    names = ("saliency", "evaluation", "calibration", "metrics", "machine", "stability", "reap_dist")
    request = Request(
        given=Given(folder, **{name: getattr(arguments, name) for name in names}),
        output=arguments.output or folder / "report.html",
        png=arguments.png,
        plans=tuple(arguments.plan),
        title=arguments.title,
        starved=arguments.starved,
    )
    for path in make_report(request):
        print(f"written: {path}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = command_line()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # samples hold characters that a terminal may not have
    try:
        arguments = parser.parse_args(argv)
        if arguments.command == "calibrate":
            _calibrate(arguments)
        elif arguments.command == "recipes":
            print(recipes.describe(arguments.name).rstrip() if arguments.name else recipes.overview())
        elif arguments.command == "report":
            _report(arguments)
        else:
            parser.print_help()
            return ExitCode.USAGE
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ReapToolsError as error:
        return _failed(str(error), error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return _failed(f"{where}{error.strerror or error}", ExitCode.IO)
    except MemoryError:
        return _failed("out of memory", ExitCode.IO)
    except KeyboardInterrupt:
        return 130
    except Exception:
        traceback.print_exc()
        return _failed("a bug of reap-tools, see above", ExitCode.BUG)
    return ExitCode.DONE


def _failed(message: str, code: int) -> int:
    print(f"reap-tools: error: {message}", file=sys.stderr)
    return int(code)
