"""All scores of a comparison: each picture is made once for all models that lack its score; none is scored twice."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.stress.photograph import Photograph
from distill.trust import attack
from distill.trust.definitions import ATTACK, EPSILONS, PGD_STEPS, REFERENCE_METRICS, WATERLOO
from distill.trust.models import Model
from distill.trust.pictures import CLEAN, LABELS, PhotographFile, picture, pictures, version_of
from distill.trust.store import ScoreStore
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.parallel import Progress
from students.base import Student
from teachers.launch import torch_threads
from teachers.reference import build_reference

FloatArray = NDArray[np.float64]
Scores = dict[str, float]

ATTACKED = (CLEAN, "jpeg 2")
"""Pictures of the Waterloo set that are attacked: a good one, and one that is visibly damaged."""
ATTACK_LABELS = tuple(f"{label} | {way}" for label in ATTACKED for way in (CLEAN, *attack.LABELS))
_METRIC_LABELS = tuple(f"{label} | {metric}" for label in LABELS[WATERLOO] for metric in REFERENCE_METRICS)


@dataclass(frozen=True)
class Measured:
    """Scores of all models.

    Attributes:
        photographs: those that could be used.
        scores: float64 [photographs, labels of the test], by name of the model and test; of attacks, the test is
            ``attack`` and the name of the attacked model (``attack_test``).
        metrics: float64 [photographs, labels, metrics] of the Waterloo set, if it was asked for.
        without_twin: why a model cannot be attacked, by its name.
    """

    photographs: tuple[PhotographFile, ...]
    scores: dict[tuple[str, str], FloatArray]
    metrics: FloatArray | None = None
    without_twin: dict[str, str] = field(default_factory=dict)


def attack_test(model: str) -> str:
    """Name of the test in which this model is attacked."""
    return f"{ATTACK} {model}"


def photograph_files(
    paths: Iterable[Path], warn: Callable[[str], None], *, first: int | None = None
) -> list[PhotographFile]:
    """The files that can be read, each once.

    Args:
        paths: files.
        warn: called with the reason for each that is left out.
        first: only so many; the others are not read.

    Raises:
        PocketiqaError: there is none.
    """
    files: dict[str, PhotographFile] = {}
    for path in paths:
        if len(files) == first:
            break
        try:
            file = PhotographFile.read(path)
        except PocketiqaError as error:
            warn(str(error))
            continue
        if file.key in files:
            warn(f"{path} is left out: {files[file.key].path} has the same name and content")
        files.setdefault(file.key, file)
    if not files:
        raise PocketiqaError(
            "there are no photographs to test on: name clean, sharp ones, or folders of them, with --on; 24 or more "
            "give useful intervals"
        )
    return list(files.values())


class _Job:
    """The scores of one test: who gives them, what they are called, and how they are made.

    Args:
        name: name of the test for ``Measured``.
        version: digest of what determines its pictures.
        labels: labels of its scores.
        scorers: those who give scores, by name: key, and function of a picture.
        walk: makes its pictures of a photograph, one by one.
    """

    def __init__(
        self,
        name: str,
        *,
        version: str,
        labels: Sequence[str],
        scorers: Mapping[str, tuple[str, Callable[[np.ndarray], float]]],
        walk: Callable[[Photograph], Iterator[tuple[str, np.ndarray]]],
    ):
        self.name, self.version, self.labels, self.scorers, self.walk = name, version, tuple(labels), scorers, walk

    def stored(self, store: ScoreStore, file: PhotographFile) -> dict[str, Scores]:
        """Scores that were made before, by name of the scorer."""
        found = {
            name: store.read((key, self.version, file.key), self.labels) for name, (key, _) in self.scorers.items()
        }
        return {name: scores for name, scores in found.items() if scores is not None}

    def make(
        self, store: ScoreStore, file: PhotographFile, photograph: Photograph, lacking: Sequence[str]
    ) -> dict[str, Scores]:
        """Scores of those who lack them."""
        made: dict[str, Scores] = {name: {} for name in lacking}
        for label, rgb in self.walk(photograph):
            for name in lacking:
                made[name][label] = self.scorers[name][1](rgb)
        for name, scores in made.items():
            store.write((self.scorers[name][0], self.version, file.key), scores)
        return made


class _Reference:
    """Full-reference metrics of the Waterloo set, as a job: its pictures are the copies, its scorer none."""

    name = "metrics"
    labels = _METRIC_LABELS
    scorers = ("metrics",)

    def __init__(self):
        self._teacher = build_reference(metrics=list(REFERENCE_METRICS))
        self._key = self._teacher.stamp.digest, version_of(WATERLOO)

    def stored(self, store: ScoreStore, file: PhotographFile) -> dict[str, Scores]:
        """See ``_Job.stored``."""
        scores = store.read((*self._key, file.key), self.labels)
        return {} if scores is None else {self.name: scores}

    def make(
        self, store: ScoreStore, file: PhotographFile, photograph: Photograph, lacking: Sequence[str]
    ) -> dict[str, Scores]:
        """See ``_Job.make``."""
        scores: Scores = {}
        for label, rgb in pictures(photograph, WATERLOO):
            output = self._teacher([self._teacher.preprocess(rgb, photograph.rgb)])  # type: ignore[list-item]
            for metric, value in zip(REFERENCE_METRICS, output.features["metrics"][0].tolist(), strict=True):
                scores[f"{label} | {metric}"] = value
        store.write((*self._key, file.key), scores)
        return {self.name: scores}


class _Opened:
    """A photograph that is decoded when somebody asks for it."""

    def __init__(self, file: PhotographFile):
        self._file = file

    @cached_property
    def photograph(self) -> Photograph:
        return self._file.open()


def measure(
    models: Sequence[Model],
    files: Sequence[PhotographFile],
    tests: Sequence[str],
    store: ScoreStore,
    *,
    progress: Progress,
    warn: Callable[[str], None],
) -> Measured:
    """Scores of all models in all tests; those that the store holds are read.

    Args:
        models: models.
        files: photographs.
        tests: some of ``definitions.TESTS``.
        store: scores that were made before; new ones are added photograph by photograph.
        progress: called with (done, total) in units of photographs times tests.
        warn: called with the reason for each photograph that cannot be used, and is left out.

    Raises:
        PocketiqaError: no photograph can be used, or a model gives no score.
    """
    jobs, without_twin = _jobs(models, tests)
    rows: dict[tuple[str, str], list[Scores]] = {}
    used = []
    with torch_threads(1):
        for number, file in enumerate(files):
            try:
                results = list(_of_photograph(jobs, file, store, _shifted(progress, number, len(files))))
            except _UnusableError as error:
                warn(str(error))
                continue
            used.append(file)
            for job, scores in results:
                for name, row in scores.items():
                    rows.setdefault((name, job.name), []).append(row)
    if not used:
        raise PocketiqaError("no photograph can be used, see the reasons above: name others with --on")
    labels = {job.name: job.labels for job in jobs}
    arrays = {
        key: np.array([[row[label] for label in labels[key[1]]] for row in own], np.float64)
        for key, own in rows.items()
    }
    metrics = arrays.pop((_Reference.name, _Reference.name), None)
    if metrics is not None:
        metrics = metrics.reshape(len(used), len(LABELS[WATERLOO]), len(REFERENCE_METRICS))
    return Measured(tuple(used), arrays, metrics, without_twin)


class _UnusableError(PocketiqaError):
    """A photograph that cannot be decoded, told apart from a model that fails."""


def _of_photograph(
    jobs: Sequence["_Job | _Reference"], file: PhotographFile, store: ScoreStore, report: Progress
) -> Iterator[tuple["_Job | _Reference", dict[str, Scores]]]:
    opened = _Opened(file)
    for done, job in enumerate(jobs, start=1):
        scores = job.stored(store, file)
        lacking = [name for name in job.scorers if name not in scores]
        if lacking:
            try:
                photograph = opened.photograph
            except PocketiqaError as error:
                raise _UnusableError(str(error)) from error
            scores |= job.make(store, file, photograph, lacking)
        report(done, len(jobs))
        yield job, scores


def _shifted(progress: Progress, number: int, files: int) -> Progress:
    return lambda done, total: progress(number * total + done, files * total)


def _jobs(models: Sequence[Model], tests: Sequence[str]) -> tuple[list["_Job | _Reference"], dict[str, str]]:
    scorers = {model.name: (model.key, model.score) for model in models}
    jobs: list[_Job | _Reference] = [
        _Job(test, version=version_of(test), labels=LABELS[test], scorers=scorers, walk=_walk(test))
        for test in LABELS
        if test in tests
    ]
    if WATERLOO in tests:
        jobs.append(_Reference())
    without_twin: dict[str, str] = {}
    for model in models if ATTACK in tests else ():
        try:
            twin = model.twin()
        except PocketiqaError as error:
            without_twin[model.name] = str(error)
            continue
        version = digest_of([ATTACK, model.key, ATTACK_LABELS, list(EPSILONS), PGD_STEPS, version_of(WATERLOO)])
        name = attack_test(model.name)
        jobs.append(_Job(name, version=version, labels=ATTACK_LABELS, scorers=scorers, walk=_attacks(twin)))
    return jobs, without_twin


def _walk(test: str) -> Callable[[Photograph], Iterator[tuple[str, np.ndarray]]]:
    return lambda photograph: pictures(photograph, test)


def _attacks(twin: Student) -> Callable[[Photograph], Iterator[tuple[str, np.ndarray]]]:
    def walk(photograph: Photograph) -> Iterator[tuple[str, np.ndarray]]:
        for label in ATTACKED:
            # At the input size of the attacked model, whose resize passes such pictures as they are.
            rgb = twin.config.preprocess.resize(picture(photograph, WATERLOO, label))
            yield f"{label} | {CLEAN}", rgb
            for way, changed in attack.attacked(twin, rgb, f"{photograph.name} {label}"):
                yield f"{label} | {way}", changed

    return walk
