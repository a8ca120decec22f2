"""Does the score follow what a display shows of a large photograph? For each look that a model's file has.

Photographs of 8 megapixels and more are damaged at their own size. Neighbouring strengths count where a display of 2
megapixels shows them differently, by the ``reference`` teacher; there the stronger one must score lower.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from time import thread_time
from typing import Any

import numpy as np

from distill.stress.large_copies import CLEAN, LADDERS, SCALED, Reference, large_copies, scaled
from distill.stress.verdict import Verdict, mean_interval
from pseudo_labels.distort.compression import encode_jpeg
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError, decode, load
from pseudo_labels.metrics.draws import Interval
from pseudo_labels.parallel import Progress
from students.look import LOOKS
from students.runtime import Scorer

MIN_PIXELS = 8_000_000
"""Smaller photographs are not large: their input hides little."""
HUGE_PIXELS = 19_000_000
"""Photographs of about 24 megapixels, for the drop under blur."""
LEAST_SHOWN = 0.02
"""Difference of the reference teacher from which on a display shows two strengths differently: a tenth of the step
between two of KADID-10k's five levels."""
_WORST_BLUR = max(LADDERS["blur"])
_TIMED_PIXELS, _TIMED_QUALITY, _TIMES = 12_000_000, 90, 3


@dataclass(frozen=True)
class LargeLimits:
    """The limits that a student has to keep on large photographs.

    Attributes:
        least_ordered: fraction of visible neighbouring pairs that are ordered rightly.
        least_drop: mean drop under a blur of 4 pixels of photographs of about 24 megapixels.
        most_move: mean absolute difference to copies of 0.5 and 0.71 of the size.
        most_time: processor time from JPEG to score, as a multiple of decoding it, for each look.
    """

    least_ordered: float = 0.95
    least_drop: float = 0.10
    most_move: float = 0.03
    most_time: Mapping[str, float] = field(default_factory=lambda: {"quick": 1.15, "close": 2.0})


LARGE_LIMITS = LargeLimits()


@dataclass(frozen=True)
class LargeScores:
    """One photograph and its copies, in one look.

    Attributes:
        photograph: name.
        pixels: width times height.
        ladders: by kind, scores of the photograph and of its copies of rising strength.
        references: by kind, what the reference teacher says of the same.
        moves: differences of the scores of its scaled copies from its own.
        time: processor time from JPEG to score, as a multiple of decoding it to an array, of the photograph in 12
            megapixels and quality 90.
    """

    photograph: str
    pixels: int
    ladders: Mapping[str, tuple[float, ...]]
    references: Mapping[str, tuple[float, ...]]
    moves: tuple[float, ...]
    time: float

    def right(self, kind: str) -> list[bool]:
        """For each neighbouring pair that a display shows differently, whether the stronger one scores lower."""
        shown = [better - worse >= LEAST_SHOWN for better, worse in pairwise(self.references[kind])]
        ordered = [better > worse for better, worse in pairwise(self.ladders[kind])]
        return [right for right, visible in zip(ordered, shown, strict=True) if visible]

    @property
    def drop(self) -> float:
        """How much the strongest blur lowers the score."""
        return self.ladders["blur"][0] - self.ladders["blur"][-1]


@dataclass(frozen=True)
class LargeResult:
    """One model in one look.

    Attributes:
        model: the name in its contract.
        digest: hex SHA-256 of the model.
        look: of ``students.look.LOOKS``.
        photographs: the measurements, at least one.
    """

    model: str
    digest: str
    look: str
    photographs: tuple[LargeScores, ...]

    def fraction(self, kind: str | None = None) -> tuple[float, int]:
        """Fraction of the visible pairs that are ordered rightly, of one kind or of all, and their number."""
        kinds = LADDERS if kind is None else (kind,)
        right = [one for scores in self.photographs for own in kinds for one in scores.right(own)]
        return (fmean(right) if right else math.nan), len(right)

    @property
    def verdicts(self) -> list[Verdict]:
        """Every limit with the figure that it is for."""
        limits = LARGE_LIMITS
        moved = [fmean(map(abs, scores.moves)) for scores in self.photographs]
        drops = [scores.drop for scores in self.photographs if scores.pixels >= HUGE_PIXELS]
        ordered = [
            fmean(right)
            for scores in self.photographs
            if (right := [one for kind in LADDERS for one in scores.right(kind)])
        ]
        blur = f"drop under blur {_WORST_BLUR:g}, from {HUGE_PIXELS / 1e6:g} Mpixel"
        several: dict[str, Any] = {"n": len(self.photographs), "of_photographs": True}
        return [
            Verdict(
                "visible pairs ordered rightly", self.fraction()[0], limits.least_ordered, at_least=True,
                **several, **_bounds(ordered),
            ),
            Verdict(
                blur, fmean(drops) if drops else math.nan, limits.least_drop, at_least=True,
                n=len(drops), of_photographs=True, **_bounds(drops),
            ),
            Verdict("moved by half the size, mean", fmean(moved), limits.most_move, **several, **_bounds(moved)),
            Verdict(
                "JPEG of 12 Mpixel to score / decoding, median", median(scores.time for scores in self.photographs),
                limits.most_time[self.look], **several,
            ),
        ]  # fmt: skip

    @property
    def failed(self) -> bool:
        """Whether a limit is missed by more than the choice of photographs explains; one without figure is passed by.

        Time is left out: on a busy machine it says little.
        """
        return any(verdict.failed for verdict in self.verdicts[:3] if not math.isnan(verdict.figure))

    def as_dict(self) -> dict[str, Any]:
        """JSON form; a figure that is no number is None."""
        verdicts: list[dict[str, Any]] = [
            {**asdict(one), "limit": one.limit_words, "passed": one.passed} for one in self.verdicts
        ]
        for verdict in verdicts:
            verdict.update({key: None for key in ("figure", "low", "high") if math.isnan(verdict[key])})
            del verdict["at_least"], verdict["of_photographs"]
        kinds = {}
        for kind in LADDERS:
            fraction, pairs = self.fraction(kind)
            kinds[kind] = {"fraction": None if math.isnan(fraction) else fraction, "pairs": pairs}
        return {**asdict(self), "verdicts": verdicts, "kinds": kinds}


def _bounds(values: Sequence[float]) -> dict[str, Any]:
    if not values:
        return {}
    bounds: Interval = mean_interval(values)
    return {"low": bounds.low, "high": bounds.high}


def stress_large(
    models: Sequence[str | os.PathLike[str] | None],
    photographs: Sequence[str | os.PathLike[str]],
    reference: Reference,
    *,
    min_pixels: int = MIN_PIXELS,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> tuple[LargeResult, ...]:
    """Measure exported students on clean large photographs, in each look that their files have.

    Args:
        models: model files or names, as for ``Scorer``.
        photographs: image files of at least ``min_pixels``, sharp and without visible distortion.
        reference: judges what a display shows (see ``large_reference``).
        min_pixels: smaller photographs are left out, with a warning.
        progress: called with (done, total) after each photograph.
        warn: called with the reason for each photograph that cannot be used.

    Returns:
        A result a model and look, in their order.

    Raises:
        PocketiqaError: no photographs that can be used, or a model that cannot.
    """
    scorers = [scorer for model in models for scorer in _looks(model)]
    measured: list[list[LargeScores]] = [[] for _ in scorers]
    for done, (name, rgb) in enumerate(large_photographs(photographs, min_pixels=min_pixels, warn=warn), start=1):
        for own, scores in zip(measured, _measured(scorers, name, rgb, reference), strict=True):
            own.append(scores)
        if progress is not None:
            progress(done, len(photographs))
    return tuple(
        LargeResult(scorer.contract.name, scorer.digest, scorer.look, tuple(own))
        for scorer, own in zip(scorers, measured, strict=True)
    )


def large_photographs(
    paths: Sequence[str | os.PathLike[str]], *, min_pixels: int, warn: Callable[[str], None] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels of each photograph that can be used, decoded one by one.

    Raises:
        PocketiqaError: there is none.
    """
    used = 0
    for path in paths:
        try:
            rgb = load(path)
        except ImageError as error:
            reason = f"{os.fspath(path)} cannot be used ({error.status}): {error.reason}"
        else:
            if rgb.shape[0] * rgb.shape[1] >= min_pixels:
                used += 1
                yield Path(path).name, rgb
                continue
            reason = f"{os.fspath(path)} has {rgb.shape[1]}x{rgb.shape[0]} pixels, fewer than {min_pixels}"
        if warn is not None:
            warn(reason)
    if not used:
        raise PocketiqaError(
            f"no photograph of {min_pixels / 1e6:g} megapixels or more: name clean large photographs, or folders of "
            "them"
        )


def _looks(model: str | os.PathLike[str] | None) -> Iterator[Scorer]:
    quick = Scorer(model, look=LOOKS[0])
    yield quick
    if quick.contract.look is not None:
        yield Scorer(model, look=LOOKS[1])


def _measured(scorers: Sequence[Scorer], name: str, rgb: np.ndarray, reference: Reference) -> Iterator[LargeScores]:
    references: dict[str, list[float]] = {kind: [1.0] for kind in LADDERS}
    scores: list[dict[str, list[float]]] = [{kind: [] for kind in (*LADDERS, SCALED)} for _ in scorers]
    clean = [scorer.score(rgb).score for scorer in scorers]
    for copy in large_copies(rgb, reference, name=name):
        if copy.kind == CLEAN:
            continue
        if copy.kind != SCALED:
            references[copy.kind].append(copy.reference)
        for own, scorer in zip(scores, scorers, strict=True):
            own[copy.kind].append(scorer.score(copy.rgb).score)
    data = encode_jpeg(scaled(rgb, math.sqrt(_TIMED_PIXELS / (rgb.shape[0] * rgb.shape[1]))), _TIMED_QUALITY)
    decoding = _seconds(lambda: decode(data))
    for first, own, scorer in zip(clean, scores, scorers, strict=True):
        yield LargeScores(
            photograph=name,
            pixels=rgb.shape[0] * rgb.shape[1],
            ladders={kind: (first, *own[kind]) for kind in LADDERS},
            references={kind: tuple(values) for kind, values in references.items()},
            moves=tuple(score - first for score in own[SCALED]),
            time=_seconds(lambda scorer=scorer: scorer.score(data)) / decoding,
        )


def _seconds(work: Callable[[], object]) -> float:
    """Processor time of this thread, which other processes hardly lengthen; the least of several."""
    times = []
    for _ in range(_TIMES):
        started = thread_time()
        work()
        times.append(thread_time() - started)
    return min(times)
