"""Everything a report shows, gathered by the caller. What is missing is left out of the page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from distill.evaluation.predictions import Predictions
from distill.evaluation.targets import Targets
from distill.leakage.image_sets import Image


@dataclass(frozen=True)
class Cost:
    """What a model costs; None for what was not measured.

    Attributes:
        parameters: number of parameters of the whole model.
        trained: number of those that were fitted to ratings.
        macs: multiply-accumulates of one image at the model's own input size.
        file_bytes: size of the file that is shipped; of a fitted teacher the part that was fitted.
        latency_ms_median: median time of an image in milliseconds, measured as ``ReportInputs.machine`` says.
        latency_ms_p95: 95th percentile of these times.
        peak_memory_mb: resident memory of a process that scores, in MB.
        device: device of the times, such as a GPU, where it is not the CPU of ``ReportInputs.machine``; in words.
    """

    parameters: int | None = None
    trained: int | None = None
    macs: int | None = None
    file_bytes: int | None = None
    latency_ms_median: float | None = None
    latency_ms_p95: float | None = None
    peak_memory_mb: float | None = None
    device: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class MapExample:
    """A photograph and where the student sees its quality.

    Attributes:
        name: name of the photograph.
        rgb: uint8 HxWx3.
        quality_map: [h, w] in [0, 1], 1 best.
        score: score of the whole photograph.
    """

    name: str
    rgb: np.ndarray
    quality_map: np.ndarray
    score: float


@dataclass(frozen=True)
class DistortedCopy:
    """A photograph, a visibly distorted copy, and the score of each.

    Attributes:
        name: name of the photograph.
        distortion: name of the distortion, for a person.
        original_score: score of the original, in [0, 1].
        distorted_score: score of the copy, in [0, 1].
        original: pixels, uint8 HxWx3; None to show no picture.
        distorted: pixels of the copy, uint8 HxWx3; None to show no picture.
    """

    name: str
    distortion: str
    original_score: float
    distorted_score: float
    original: np.ndarray | None = None
    distorted: np.ndarray | None = None


@dataclass(frozen=True)
class Fitting:
    """How the teacher of a student was fitted to ratings.

    Attributes:
        teacher: name of the teacher.
        history: records of its ``history.jsonl``.
        kept_step: training step whose weights it has.
        ratings: sets of ratings that it was fitted to, each as one of ``ReportInputs.pools``.
    """

    teacher: str
    history: Sequence[Mapping[str, Any]]
    kept_step: int
    ratings: Sequence[Mapping[str, Any]] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "teacher": self.teacher,
            "history": [dict(record) for record in self.history],
            "kept_step": self.kept_step,
            # The key in ``report.json``, whose names stay.
            "opinions": [dict(pool) for pool in self.ratings],
        }


@dataclass(frozen=True)
class Neighbours:
    """Tested images and the trained ones nearest to them.

    Attributes:
        name: name of the image set that was evaluated on.
        record: the result of ``leakage.record.read_overlap``; None if nothing was compared.
        trained: training images, for pictures.
        tested: test images, for pictures.
        folder: folder of the record, its page, groups and split, relative to the report.
        reason: why nothing was compared; else empty.
    """

    name: str
    record: Mapping[str, Any] | None = None
    trained: Sequence[Image] = ()
    tested: Sequence[Image] = ()
    folder: str = ""
    reason: str = ""


@dataclass(frozen=True)
class RegionExample:
    """A region of a held-out picture: what the student says of it, and its label.

    Attributes:
        name: name of the picture.
        source: name of the data that it is of.
        distortion: what was done to it, in words; empty if it is not known or nothing was.
        quality: the student's, in [0, 1].
        importance: the student's, in [0, 1].
        quality_label: in [0, 1].
        importance_label: in [0, 1]; None where there is none.
        panels: the picture with the region's outline, and its quality map with outline and quality: uint8 HxWx3.
    """

    name: str
    source: str
    distortion: str
    quality: float
    importance: float
    quality_label: float
    importance_label: float | None
    panels: tuple[np.ndarray, np.ndarray]

    def as_dict(self) -> dict[str, Any]:
        """JSON form, without the pictures."""
        return {key: value for key, value in vars(self).items() if key != "panels"}


@dataclass(frozen=True)
class Regions:
    """How well a student knows regions of held-out pictures.

    Attributes:
        evaluation: ``part`` and ``sources``, as ``stages.evaluation.read_region_results`` gives them.
        regions: how many regions the examples were chosen of.
        pictures: how many pictures these are of.
        worst: examples by the student's quality, the lowest first.
        best: the same, the highest first.
        farthest: examples by the distance of the student's quality from the label, the farthest first.
        types: by teacher, the distortion that is known of regions, the one that it named, and how many these are.
    """

    evaluation: Mapping[str, Any]
    regions: int = 0
    pictures: int = 0
    worst: Sequence[RegionExample] = ()
    best: Sequence[RegionExample] = ()
    farthest: Sequence[RegionExample] = ()
    types: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON form, without the pictures."""
        examples = {name: [one.as_dict() for one in getattr(self, name)] for name in ("worst", "best", "farthest")}
        types = {
            teacher: {known: {"n": sum(named.values()), "named": dict(named)} for known, named in rows.items()}
            for teacher, rows in self.types.items()
        }
        return {**self.evaluation, "examples": {"regions": self.regions, "pictures": self.pictures, **examples},
                "types": types}  # fmt: skip


@dataclass(frozen=True)
class ReportInputs:
    """Inputs of ``build_report``.

    Attributes:
        title: title of the page.
        evaluation: result of ``evaluation.evaluate``.
        targets: target scores that were evaluated on.
        predictions: predictions that were evaluated.
        model: name in the evaluation of the student, or of the fitted teacher, that the page is about.
        kind: whether ``model`` is a student or a teacher.
        teacher: name of the teacher of a student: in the evaluation, or the one whose labels are the targets.
        benchmarks: further results of ``evaluation.evaluate``, on people's ratings; ``model`` is the first in each.
        costs: cost of each model, by name; may name models that are not evaluated.
        machine: machine that the costs were measured on, and how, for a person.
        history: records of ``history.jsonl``.
        kept_step: training step whose weights the model has.
        fitting: course of the fitting of each teacher that was fitted for this student.
        load_image: gives the pixels of a target by its id, for pictures; None for no pictures.
        quality_maps: example photographs with the quality map of the student.
        distorted: example photographs with a distorted copy and both scores.
        regions: how well a student knows regions; None if that was not evaluated.
        pools: a record of each data set: ``name``, ``images``, ``statuses`` (status to count), ``groups``,
            ``digest``, ``distortions`` (name to count), ``licence``; absent keys are not shown.
        split: numbers of ``images`` and ``groups`` of each part.
        teachers: ``TeacherStamp.as_dict()`` of each teacher; of a fitted one with its ``digest`` and that of its
            frozen ``base`` too.
        overlap: ``Overlap.as_dict()``.
        neighbours: nearest training images of each image set that was evaluated on.
        contract: ``StudentContract.as_dict()`` of an exported student, with the ``digest`` of its file's content.
        command: command that repeats everything.
        notes: limits and remarks for the model card, a sentence each.
        licence: licence of the model.
    """

    title: str
    evaluation: Mapping[str, Any]
    targets: Targets
    predictions: Sequence[Predictions]
    model: str
    kind: Literal["student", "teacher"] = "student"
    teacher: str | None = None
    benchmarks: Sequence[Mapping[str, Any]] = ()
    costs: Mapping[str, Cost] = field(default_factory=dict)
    machine: str = ""
    history: Sequence[Mapping[str, Any]] = ()
    kept_step: int | None = None
    fitting: Sequence[Fitting] = ()
    load_image: Callable[[str], np.ndarray] | None = None
    quality_maps: Sequence[MapExample] = ()
    distorted: Sequence[DistortedCopy] = ()
    regions: Regions | None = None
    pools: Sequence[Mapping[str, Any]] = ()
    split: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    teachers: Sequence[Mapping[str, Any]] = ()
    overlap: Mapping[str, Any] | None = None
    neighbours: Sequence[Neighbours] = ()
    contract: Mapping[str, Any] | None = None
    command: str = ""
    notes: Sequence[str] = ()
    licence: str = ""
