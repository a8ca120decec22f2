"""Everything a report shows, gathered by the caller. What is missing is left out of the page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from distill.evaluation.predictions import Predictions
from distill.evaluation.targets import Targets


@dataclass(frozen=True)
class Cost:
    """What a model costs; None for what was not measured.

    Attributes:
        parameters: trained values.
        macs: multiply-accumulates of one image at the model's own input size.
        file_bytes: of the file that is shipped.
        latency_ms_median: milliseconds an image, as said in ``ReportInputs.machine``.
        latency_ms_p95: 95th percentile of the same.
        peak_memory_mb: resident memory of a process that scores, in MB.
    """

    parameters: int | None = None
    macs: int | None = None
    file_bytes: int | None = None
    latency_ms_median: float | None = None
    latency_ms_p95: float | None = None
    peak_memory_mb: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class MapExample:
    """A photograph and where the student sees its quality.

    Attributes:
        name: of the photograph.
        rgb: uint8 HxWx3.
        quality_map: [h, w] in [0, 1], 1 best.
        score: of the whole.
    """

    name: str
    rgb: np.ndarray
    quality_map: np.ndarray
    score: float


@dataclass(frozen=True)
class DamagedCopy:
    """A photograph, a visibly damaged copy, and the score of each.

    Attributes:
        name: of the photograph.
        damage: what was done, for a person.
        original_score: in [0, 1].
        damaged_score: in [0, 1].
        original: uint8 HxWx3; None to show no picture.
        damaged: likewise.
    """

    name: str
    damage: str
    original_score: float
    damaged_score: float
    original: np.ndarray | None = None
    damaged: np.ndarray | None = None


@dataclass(frozen=True)
class ReportInputs:
    """Inputs of ``build_report``.

    Attributes:
        title: of the page.
        evaluation: result of ``evaluation.evaluate``.
        targets: what was judged by.
        predictions: those that were evaluated.
        student: name of the student in the evaluation.
        teacher: name of the teacher: in the evaluation, or of the one whose labels are the targets.
        costs: cost of each model, by name; may name models that are not evaluated.
        machine: what the costs were measured on and how, for a person.
        history: records of ``history.jsonl``.
        load_image: gives the pixels of a target by its id, for pictures; None for no pictures.
        quality_maps: examples.
        damaged: examples.
        pools: of each data set: ``name``, ``images``, ``statuses`` (status to count), ``groups``, ``digest``,
            ``distortions`` (name to count), ``licence``; absent keys are not shown.
        split: of each part its numbers of ``images`` and ``groups``.
        teachers: ``TeacherStamp.as_dict()`` of each teacher.
        overlap: ``Overlap.as_dict()``.
        contract: ``StudentContract.as_dict()`` of the exported student.
        command: that repeats everything.
        notes: limits and remarks for the model card, a sentence each.
        licence: of the student.
    """

    title: str
    evaluation: Mapping[str, Any]
    targets: Targets
    predictions: Sequence[Predictions]
    student: str
    teacher: str | None = None
    costs: Mapping[str, Cost] = field(default_factory=dict)
    machine: str = ""
    history: Sequence[Mapping[str, Any]] = ()
    load_image: Callable[[str], np.ndarray] | None = None
    quality_maps: Sequence[MapExample] = ()
    damaged: Sequence[DamagedCopy] = ()
    pools: Sequence[Mapping[str, Any]] = ()
    split: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    teachers: Sequence[Mapping[str, Any]] = ()
    overlap: Mapping[str, Any] | None = None
    contract: Mapping[str, Any] | None = None
    command: str = ""
    notes: Sequence[str] = ()
    licence: str = ""
