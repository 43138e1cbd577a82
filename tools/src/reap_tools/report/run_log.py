"""run_log.json, the metrics of a run, and what its machine could do: where the time went."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reap_tools.report.fields import Fields, parse


@dataclass(frozen=True)
class Phase:
    """A phase of the job; equal ones, such as the writing of several outputs, taken together."""

    name: str
    unit: str
    units: int
    seconds: float
    times: int


@dataclass(frozen=True)
class RunLog:
    """What a run says of itself."""

    software: str
    command: str
    finished: str
    options: dict[str, str]
    hosts: tuple[str, ...]  # of each rank
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class Machine:
    """Rates of one rank, from `reap_dist estimate --json`: products in GFLOP/s, reading and writing in GB/s."""

    kind: str
    ranks: int
    rate: dict[str, float]
    source: dict[str, str]


def read_run_log(path: Path) -> RunLog:
    """Reads the file."""
    file = Fields.of_file(path)
    options = file.object("options") if file.has("options") else None
    phases: dict[tuple[str, str], Phase] = {}
    for each in file.objects("phases"):
        key = (each.text("name"), each.text("unit"))
        before = phases.get(key, Phase(*key, 0, 0.0, 0))
        units, seconds = before.units + each.whole("units"), before.seconds + each.number("seconds")
        phases[key] = Phase(*key, units, seconds, before.times + 1)
    return RunLog(
        software=file.text("software"),
        command=file.text("command"),
        finished=file.text("finished_utc"),
        options={name: options.text(name) for name in options.names()} if options else {},
        hosts=tuple(file.texts("hosts")),
        phases=tuple(phases.values()),
    )


def read_gflops(path: Path) -> dict[str, float]:
    """GFLOP/s of the phases that count them, from a metrics file; of phases that came several times, the last."""
    found = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        event = Fields(parse(line, where), where)
        if event.text("event") == "phase_end" and event.has("gflops"):
            found[event.text("phase")] = event.number("gflops")
    return found


def read_machine(path: Path) -> Machine:
    """Reads the rates that `reap_dist estimate --json` went by."""
    file = Fields.of_file(path)
    machine = file.object("machine")
    rates = {name: machine.object(name) for name in machine.names() if name != "kind"}
    ranks = file.whole("ranks")
    if ranks == 0:
        raise file.wrong("ranks", "above 0")
    return Machine(
        kind=machine.text("kind"),
        ranks=ranks,
        rate={name: value for name, each in rates.items() if (value := each.measured("value")) > 0},
        source={name: each.text("source") for name, each in rates.items()},
    )
