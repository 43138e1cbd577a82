"""What there is to report on: the files of a folder, checked against each other, and what is absent and why."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from reap_tools.errors import BadInputError
from reap_tools.report.calibration import Calibration, read_calibration
from reap_tools.report.evaluation import Evaluation, read_evaluation
from reap_tools.report.plan import Plan, read_plan
from reap_tools.report.run_log import Machine, RunLog, read_gflops, read_machine, read_run_log
from reap_tools.report.saliency import Saliency, read_saliency
from reap_tools.report.stability import Stability, ask_reap_dist, stability_of

_PLAN_SUFFIX = ".plan.json"
_HASHED_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Given:
    """Files that the command line names instead of, or besides, those of the folder."""

    folder: Path
    saliency: Path | None = None
    evaluation: Path | None = None
    calibration: Path | None = None
    metrics: Path | None = None
    machine: Path | None = None
    stability: Path | None = None
    reap_dist: Path | None = None  # the program, where there is no file of stability


@dataclass(frozen=True)
class InputFile:
    """A file that the page was made of."""

    name: str
    bytes: int
    sha256: str


@dataclass
class Material:
    """All that was read."""

    saliency: Saliency | None = None
    plans: list[Plan] = field(default_factory=list)
    evaluation: Evaluation | None = None
    run_log: RunLog | None = None
    gflops: dict[str, float] | None = None
    machine: Machine | None = None
    calibration: Calibration | None = None
    stability: Stability | None = None
    no_stability: str = ""  # why there is none
    files: list[InputFile] = field(default_factory=list)

    def plan(self, name: str) -> Plan | None:
        """The plan of that name."""
        return next((plan for plan in self.plans if plan.name == name), None)

    @property
    def model(self) -> tuple[str, str]:
        """Type and digest of the model."""
        of = self.saliency or self.evaluation or self.plans[0]
        return of.model_type, of.model_digest

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Layers, experts of a layer, experts of a token."""
        of = self.saliency or (self.plans[0] if self.plans else None)
        return (of.layers, of.experts, of.top_k) if of else None


def _input_file(path: Path) -> InputFile:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_HASHED_AT_ONCE):
            digest.update(chunk)
            size += len(chunk)
    return InputFile(path.name, size, digest.hexdigest())


def read(given: Given) -> Material:
    """Reads what is there. A file that the command line names has to be; one of the folder need not."""
    material = Material()

    def found(named: Path | None, name: str) -> Path | None:
        path = named or given.folder / name
        if named is None and not path.exists():
            return None
        material.files.append(_input_file(path))
        return path

    if not given.folder.is_dir():
        raise FileNotFoundError(2, "no such folder", str(given.folder))
    if path := found(given.saliency, "saliency.h5"):
        material.saliency = read_saliency(path)
    for path in sorted(given.folder.glob("*" + _PLAN_SUFFIX)):
        material.files.append(_input_file(path))
        material.plans.append(read_plan(path, path.name.removesuffix(_PLAN_SUFFIX)))
    material.plans.sort(key=lambda plan: (plan.criterion != "reap", plan.criterion, plan.ratio, plan.name))
    if path := found(given.evaluation, "sweep.json"):
        material.evaluation = read_evaluation(path)
    if path := found(None, "run_log.json"):
        material.run_log = read_run_log(path)
    if path := found(given.metrics, "metrics.jsonl"):
        material.gflops = read_gflops(path)
    if path := found(given.machine, "estimate.json"):
        material.machine = read_machine(path)
    if path := found(given.calibration, "calibration.h5"):
        material.calibration = read_calibration(path)
    if path := found(given.stability, "stability.json"):
        material.stability = stability_of(path.read_bytes(), str(path))
    elif material.saliency is not None:
        saliency = given.saliency or given.folder / "saliency.h5"
        material.stability, material.no_stability = ask_reap_dist(given.reap_dist, saliency, material.plans)
    else:
        material.no_stability = "saliency.h5 is not in the folder."
    if material.saliency is None and material.evaluation is None and not material.plans:
        raise BadInputError(
            f"{given.folder}: holds no saliency.h5, no *{_PLAN_SUFFIX} and no sweep.json; name the folder of "
            "`reap_dist run --output`"
        )
    _check(material, given)
    return material


def _check(material: Material, given: Given) -> None:
    """Files of different models or samples on one page would tell a wrong story."""
    model = material.model[1]
    for plan in material.plans:
        where = given.folder / (plan.name + _PLAN_SUFFIX)
        if plan.model_digest != model:
            raise BadInputError(f"{where}: is of another model (digest {plan.model_digest}) than the rest ({model})")
        if (plan.layers, plan.experts, plan.top_k) != material.shape:
            raise BadInputError(f"{where}: its layers and experts are not those of the rest")
    if (evaluation := material.evaluation) is not None:
        _check_evaluation(evaluation, material, given.evaluation or given.folder / "sweep.json")
    if material.stability is not None and material.stability.model_digest != model:
        raise BadInputError(
            f"{given.stability or given.folder / 'stability.json'}: is of another model (digest "
            f"{material.stability.model_digest}) than the rest ({model})"
        )
    calibration, saliency = material.calibration, material.saliency
    if calibration is not None and saliency is not None and calibration.digest != saliency.calibration_digest:
        raise BadInputError(
            f"{given.calibration or given.folder / 'calibration.h5'}: the saliency is of other samples (digest "
            f"{saliency.calibration_digest}, this one {calibration.digest})"
        )


def _check_evaluation(evaluation: Evaluation, material: Material, where: Path) -> None:
    if evaluation.model_digest != material.model[1]:
        raise BadInputError(
            f"{where}: is of another model (digest {evaluation.model_digest}) than the rest ({material.model[1]})"
        )
    saliency = material.saliency
    if saliency is not None and evaluation.calibration_digest not in (None, saliency.calibration_digest):
        raise BadInputError(
            f"{where}: its plans rest on other samples (digest {evaluation.calibration_digest}) than the saliency "
            f"({saliency.calibration_digest})"
        )
    for variant in evaluation.variants:
        plan = material.plan(variant.name)
        if variant.plan_digest is not None and plan is not None and plan.digest != variant.plan_digest:
            raise BadInputError(
                f"{where}: measured another plan under the name {variant.name} than {plan.name}{_PLAN_SUFFIX}; "
                "evaluate again"
            )
