"""The page: everything that was read and drawn, laid out by one template into one file."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import matplotlib

from reap_tools import __version__
from reap_tools.calibration_file import write_atomically
from reap_tools.errors import BadInputError, UsageError
from reap_tools.report import certainty, curves, maps, tables
from reap_tools.report.draw import Picture
from reap_tools.report.plan import Plan
from reap_tools.report.quality import Quality, starved_fact
from reap_tools.report.read import Given, Material, read
from reap_tools.report.words import change, dropped, listed, perplexity, share, small, whole

GENERATOR = "reap-tools report"
_MAPS_AT_MOST = 4  # plans that are drawn when none is named


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    given: Given
    output: Path
    png: Path | None = None
    plans: tuple[str, ...] = ()
    title: str | None = None
    starved: int = 100


def _shown_plans(material: Material, asked: tuple[str, ...]) -> list[Plan]:
    """Plans whose maps are drawn: those asked for; else the sweep's choice or the best of each step; else the first."""
    plans = {plan.name: plan for plan in material.plans}
    for name in asked:
        if name not in plans:
            raise UsageError(f"--plan {name}: the folder has {listed(list(plans))}")
    if asked:
        return [plans[name] for name in dict.fromkeys(asked)]
    if material.evaluation is not None:
        chosen = material.evaluation.chosen
        best = [variant.name for variant in Quality.of(material.evaluation, material).least()]
        wanted = sorted(chosen) if chosen else best
        if found := [plans[name] for name in wanted if name in plans]:
            return found[:_MAPS_AT_MOST]
    return material.plans[:_MAPS_AT_MOST]


@dataclass
class _Page:
    """Figures by section."""

    maps: list[Picture]
    usage: list[Picture]
    stability: list[Picture]
    curves: list[Picture]
    domain_curves: list[Picture]

    def all(self) -> list[Picture]:
        return [*self.curves, *self.domain_curves, *self.maps, *self.usage, *self.stability]


def _draw(material: Material, shown: list[Plan], quality: Quality | None, starved: int) -> _Page:
    page = _Page([picture for plan in shown for picture in maps.plan_maps(plan)], [], [], [], [])
    if material.saliency is not None:
        page.usage.append(maps.usage_map(material.saliency, starved))
        if not shown:
            page.maps.append(maps.saliency_map(material.saliency))
    if material.stability is not None:
        page.stability = certainty.stability_figures(material.stability, shown)
    if quality is not None and quality.evaluation.variants:
        evaluation, at = quality.evaluation, quality.dropped
        page.curves = [curves.perplexity_curves(evaluation, at), curves.kl_curves(evaluation, at)]
        if len(evaluation.domains) > 1:
            page.domain_curves = [
                curves.perplexity_curves(evaluation, at, domain)
                for domain, measure in enumerate(evaluation.base.domains)
                if measure.predicted > 0
            ]
    return page


def _legend(quality: Quality | None) -> list[tuple[str, str]]:
    if quality is None:
        return []
    names = curves.criteria(quality.evaluation)
    looks = curves.looks(names)
    entries = [(name, curves.swatch(str(i), looks[name])) for i, name in enumerate(names)]
    return [*entries, ("unpruned", curves.swatch("base", None))]


def _html(material: Material, request: Request, page: _Page, shown: list[Plan], quality: Quality | None) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reap_tools.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words: dict[str, Any] = {each.__name__: each for each in (change, dropped, listed, perplexity, share, small, whole)}
    environment.filters["perplexity"] = perplexity
    kind, evaluated = material.model[0], quality is not None and bool(quality.evaluation.variants)
    facts = quality.facts() if quality else []
    if material.stability and (fact := certainty.stability_fact(material.stability, shown)):
        facts.append(fact)
    if fact := starved_fact(material.saliency, request.starved, shown):
        facts.append(fact)
    return environment.get_template("page.html.jinja").render(
        words,
        generator=f"{GENERATOR} {__version__}, matplotlib {matplotlib.__version__}",
        title=request.title or (f"What pruning {kind} costs" if evaluated else f"Pruning {kind}"),
        material=material,
        page=page,
        quality=quality,
        facts=facts,
        legend=_legend(quality),
        plans=[plan.name for plan in shown],
        usage=tables.usage_rows(material.saliency, request.starved) if material.saliency else [],
        starved=request.starved,
        cuts=certainty.cut_rows(material.stability) if material.stability else [],
        domain_cuts=certainty.shown_cuts(material.stability, shown) if material.stability else [],
        timings=tables.timings(material),
        provenance=tables.provenance(material),
    )


def _check_output(output: Path) -> None:
    """Only what is a report may be replaced without asking."""
    with contextlib.suppress(FileNotFoundError), output.open("rb") as file:
        if GENERATOR.encode() not in file.read(2048):
            raise BadInputError(f"{output}: exists and is no report; name another file")


def make_report(request: Request) -> list[Path]:
    """Reads, draws and writes; returns what was written."""
    _check_output(request.output)
    material = read(request.given)
    shown = _shown_plans(material, request.plans)
    evaluation = material.evaluation
    quality = Quality.of(evaluation, material) if evaluation else None
    page = _draw(material, shown, quality, request.starved)
    text = _html(material, request, page, shown, quality)
    written = [request.output]
    if request.png is not None:
        request.png.mkdir(parents=True, exist_ok=True)
        for picture in page.all():
            path = request.png / f"{picture.name}.png"
            write_atomically(path, memoryview(picture.png()))
            written.append(path)
    write_atomically(request.output, memoryview(text.encode()))
    return written
