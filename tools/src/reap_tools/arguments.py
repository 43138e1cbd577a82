"""The command line, in one place with the help that teaches it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from reap_tools import __version__
from reap_tools.errors import UsageError
from reap_tools.settings import BAD_ROWS, FORMATS, LONG, SAMPLING

_CALIBRATE = """\
Makes a calibration file for reap_dist: reads local conversations and texts, renders conversations with the model's own
chat template, tokenises with its tokenizer, and writes token ids with their provenance. The same inputs give the same
bytes."""

_REPORT = """\
Draws the results of `reap_dist run` as one page of HTML that needs nothing else: what each ratio and criterion costs,
which experts go, how sure that is, how experts are used, where the time went, and how it all came to be. It takes what
the folder holds (saliency.h5, *.plan.json, sweep.json, run_log.json, metrics.jsonl, estimate.json, stability.json,
calibration.h5) and says what is not there. The same files give the same page."""

_EXAMPLES = """\
sources:
  --source PATH:DOMAIN:COUNT    PATH is a file, a folder, or a quoted pattern: .jsonl .json .parquet .txt, also .gz
                                DOMAIN names what the samples are of; saliency is kept, and can be weighted, by domain
                                COUNT is a number of samples, or all, or a weight such as 0.3x: a share of --samples
rows are recognised by their fields:
  messages, conversations       a conversation: role and content (or from and value), tool_calls; tools beside it
  instruction, input, output    one question and its answer
  query, answers, tools         one question answered by tool calls
  prompt, completion            one question and its answer
  text, content                 plain text, taken as it is
  --field NAME reads another field; a text file is one row

examples, from the root of the repository:
  reap-tools calibrate --model tests/data/m2-nano-fp8 --source tools/tests/data/chats.jsonl:chat:3 \\
      --source tools/tests/data/prose.jsonl:prose:8 --long split --max-tokens 256 --output calib.h5
  reap-tools calibrate --model MiniMax-M2 --source 'code/*.parquet:code:2x' --source chats.jsonl:chat:1x \\
      --samples 3000 --max-tokens 4096 --output calib.h5
  reap-tools calibrate --model MiniMax-M2 --recipe evol-codealpaca-64x512 --data datasets --output calib.h5

a held-out file of other rows of the same data:
  reap-tools calibrate ... --exclude calib.h5 --output heldout.h5

exit codes: 0 done, 2 usage, 3 an input is not what it should be, 4 reading or writing failed, 70 a bug"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose options have one name."""

    def __init__(self, **how: Any) -> None:
        super().__init__(allow_abbrev=False, **how)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def command_line() -> argparse.ArgumentParser:
    """The parser of `reap-tools`."""
    parser = _Parser(prog="reap-tools", description="Text and pictures around reap_dist.")
    parser.add_argument("--version", action="version", version=f"reap-tools {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    _add_calibrate(commands)
    _add_report(commands)
    shown = commands.add_parser("recipes", help="lists the recipes that come with the package, or prints one")
    shown.add_argument("name", nargs="?", help="the recipe to print")
    return parser


def _add_calibrate(commands: Any) -> None:
    parser = commands.add_parser(
        "calibrate",
        help="makes a calibration file",
        description=_CALIBRATE,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="checkpoint folder: tokenizer, template, config.json"
    )
    files.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the calibration file to write (calibration.h5)",
        default=Path("calibration.h5"),
    )
    files.add_argument("--overwrite", action="store_true", help="replace an existing output")
    files.add_argument(
        "--dry-run", action="store_true", help="write nothing; print what would be taken and how samples begin"
    )

    data = parser.add_argument_group("data")
    data.add_argument(
        "--source", action="append", default=[], metavar="PATH:DOMAIN:COUNT", help="see below; may be repeated"
    )
    data.add_argument(
        "--recipe",
        metavar="NAME",
        help="sources and settings of a recipe: a TOML file, or one of `reap-tools recipes`; options given here win",
    )
    data.add_argument("--data", type=Path, metavar="DIR", help="the folder that holds a recipe's data sets")
    data.add_argument("--samples", type=int, metavar="N", help="samples in all, for sources with weights")
    data.add_argument("--seed", type=int, metavar="N", help="decides which rows are drawn (42)")
    data.add_argument(
        "--sampling", choices=SAMPLING, help="random: drawn by seed (default); first: in the order of the files"
    )
    data.add_argument(
        "--exclude",
        type=Path,
        action="append",
        metavar="FILE",
        help="leave out the rows that this calibration file was made of",
    )
    data.add_argument(
        "--keep-duplicates", action="store_true", default=None, help="equal texts and equal samples stay in"
    )
    data.add_argument(
        "--bad-rows",
        choices=BAD_ROWS,
        help="error: stop at a row that cannot be used (default); skip: leave it out and count it",
    )

    rows = parser.add_argument_group("from rows to text")
    rows.add_argument("--format", choices=FORMATS, help="how rows are read; auto (default) goes by their fields")
    rows.add_argument("--field", metavar="NAME", help="the field that holds the text or the conversation")
    rows.add_argument(
        "--tools", type=Path, metavar="FILE", help="JSON list of tool descriptions for conversations that bring none"
    )
    rows.add_argument("--template", type=Path, metavar="FILE", help="another chat template than the model's")
    rows.add_argument(
        "--template-arg",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="a variable for the template, such as enable_thinking=false",
    )
    rows.add_argument(
        "--date", metavar="YYYY-MM-DD", help="the day for templates that print one; without it they are told none"
    )

    cut = parser.add_argument_group("from text to samples")
    cut.add_argument("--max-tokens", type=int, metavar="N", help="longest sample (2048)")
    cut.add_argument("--min-tokens", type=int, metavar="N", help="shorter samples are left out (1)")
    cut.add_argument(
        "--long", choices=LONG, help="what becomes of longer rows: truncate (default), split into several samples, skip"
    )
    cut.add_argument(
        "--pack",
        action="store_true",
        default=None,
        help="put rows one after the other into samples of --max-tokens; they then see each other",
    )
    cut.add_argument(
        "--separator",
        metavar="TOKEN",
        help="between packed rows: eos, none, a token's text, or auto: eos after plain text only (auto)",
    )
    cut.add_argument(
        "--no-special-tokens",
        dest="special_tokens",
        action="store_false",
        default=None,
        help="plain text without the tokens that the tokenizer adds around it",
    )


def _add_report(commands: Any) -> None:
    parser = commands.add_parser("report", help="draws the results of a run as one page", description=_REPORT)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder that `reap_dist run --output` filled")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the page to write (DIR/report.html)")
    parser.add_argument("--png", type=Path, metavar="DIR", help="a folder for the figures as PNG, too")
    parser.add_argument(
        "--plan",
        action="append",
        default=[],
        metavar="NAME",
        help="a plan to draw a map of, such as reap-0.25; may be repeated (the sweep's choice, or those with least KL)",
    )
    parser.add_argument("--title", metavar="TEXT", help="the page's heading")
    parser.add_argument(
        "--starved", type=int, default=100, metavar="N", help="experts with fewer tokens are pointed out (100)"
    )
    files = parser.add_argument_group("files that lie elsewhere")
    for name, what in (
        ("saliency", "saliency.h5"),
        ("evaluation", "sweep.json, or the file of `reap_dist eval --evaluation`"),
        ("calibration", "the calibration file, for where its samples come from"),
        ("metrics", "what `reap_dist run --metrics` wrote, for GFLOP/s"),
        ("machine", "what `reap_dist estimate --probe --json` printed, for shares of peak"),
        ("stability", "what `reap_dist inspect --json` printed of the saliency file, for how sure the cuts are"),
    ):
        files.add_argument(f"--{name}", type=Path, metavar="FILE", help=what)
    files.add_argument(
        "--reap-dist", type=Path, metavar="PROGRAM", help="reap_dist, to ask it for that (the one in PATH, if any)"
    )
