"""How well models know the regions of pictures: quality, importance, and which region is distorted.

Three figures, each with an interval over resampled scenes:

* over all regions: SRCC and PLCC with the labels;
* within pictures: the mean of each picture's own SRCC. A model that says the same of all regions of a picture has no
  order there, and counts 0. Where labels are equal, as of untouched regions, no continuous score can be equal too: the
  *ceiling* is the mean SRCC of a model that errs in nothing but the order of equal labels.
* pointing: the fraction of the pictures with one distorted region in which it has the lowest quality of all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from pseudo_labels.distort.catalogue import CATALOGUE
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.metrics.bootstrap import bootstrap_metrics
from pseudo_labels.metrics.correlation import METRICS, MIN_IMAGES, srcc, undefined
from pseudo_labels.metrics.draws import Draws, interval

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class RegionTargets:
    """Labels of regions, one entry a region; those of one picture stand together.

    Attributes:
        picture: id of the picture of each region.
        scene: its scene, [R] names.
        quality: [R] in [0, 1], 1 best.
        importance: [R] in [0, 1]; NaN where there is none.
        distorted: [R] whether it is the only distorted region of its picture.
        distortion: [R] what was done to it; empty for nothing. Empty as a whole where that is not known.
    """

    picture: Sequence[str]
    scene: Sequence[str]
    quality: FloatArray
    importance: FloatArray
    distorted: BoolArray
    distortion: Sequence[str] = ()

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in ("picture", "scene", "quality", "importance", "distorted")}
        if len(lengths) != 1 or not len(self.picture):
            raise PocketiqaError(f"labels of regions have the lengths {sorted(lengths)}: give one of each for a region")

    @property
    def pictures(self) -> list[NDArray[np.int64]]:
        """Positions of the regions of each picture."""
        return _by_picture(np.asarray(self.picture, object))

    def take(self, which: BoolArray) -> "RegionTargets":
        """Some of the regions."""
        return RegionTargets(
            [name for name, taken in zip(self.picture, which, strict=True) if taken],
            [name for name, taken in zip(self.scene, which, strict=True) if taken],
            **{name: getattr(self, name)[which] for name in ("quality", "importance", "distorted")},
            distortion=[name for name, taken in zip(self.distortion, which, strict=False) if taken],
        )

    def selections(self) -> dict[str, BoolArray]:
        """Parts of the regions by what was done to them, each with words for what it holds; empty if that is unknown.

        Copies with several distorted regions have an order that is rich, those with one a region to point at. *Visible*
        leaves out regions with a change of ``tones``.
        """
        done = np.array([bool(name) for name in self.distortion])
        if not done.any():
            return {}
        hidden, number = tones(), np.zeros(len(done), int)
        for own in self.pictures:
            number[own] = done[own].sum()
        seen = np.array([name not in hidden for name in self.distortion])
        # Of a picture whose only distorted region cannot be seen, all that is left is equal.
        points = np.zeros(len(done), bool)
        for own in self.pictures:
            points[own] = (done & seen)[own].any()
        parts = {
            "several distorted regions, visible": (number > 1) & seen,
            "several distorted regions": number > 1,
            "one distorted region, visible": (number == 1) & seen & points,
            "one distorted region": number == 1,
        }
        kept: dict[str, BoolArray] = {}
        for name, part in sorted(parts.items(), key=lambda item: len(item[0])):
            # Where all can be seen, the two are one.
            if part.any() and not part.all() and not any(np.array_equal(part, other) for other in kept.values()):
                kept[name] = part
        return {name: kept[name] for name in parts if name in kept}


def tones() -> frozenset[str]:
    """Distortions that change tones or colours of all pixels alike: a region may have been so from the start.

    No score without the clean picture can know them; blur, noise, compression and the like can be seen.
    """
    of_family = {name for name, one in CATALOGUE.items() if one.family in ("brightness", "colour")}
    others = {"contrast_change", "camera_exposure", "camera_contrast", "camera_colorfulness"}
    # These leave steps and fringes, which can be seen.
    return frozenset((of_family | others) - {"color_quantization", "color_diffusion", "color_shift"})


def evaluate_regions(
    targets: RegionTargets,
    quality: Mapping[str, FloatArray],
    importance: Mapping[str, FloatArray],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare models with labels of regions, and the first model with all others.

    Args:
        targets: labels.
        quality: quality of each region by model, [R]; the first model is compared with the others.
        importance: the same of importance.
        resamples: resamples of the scenes.
        seed: seed of the resamples.

    Returns:
        ``regions``, ``pictures``, ``scenes``, and for ``quality`` and ``importance`` by model ``srcc``, ``plcc``,
        ``within`` and (of quality) ``pointing``, each with ``value``, ``low``, ``high``, ``n``; ``ceiling`` of
        ``within``; and ``gain``: ``within`` of the first model minus that of each other.

    Raises:
        PocketiqaError: a prediction is missing or not finite.
    """
    evaluation = _Evaluation(targets, resamples, seed)
    known = np.isfinite(targets.importance)
    return {
        "regions": len(targets.picture),
        "pictures": len(evaluation.pictures),
        "scenes": len(set(targets.scene)),
        "quality": evaluation.of(quality, targets.quality, np.ones(len(known), bool), points=True),
        "importance": evaluation.of(importance, np.where(known, targets.importance, 0.0), known, points=False),
    }


class _Evaluation:
    def __init__(self, targets: RegionTargets, resamples: int, seed: int):
        self._targets, self.pictures = targets, targets.pictures
        scenes = [targets.scene[int(own[0])] for own in self.pictures]
        self._region_draws = Draws.of(len(targets.picture), targets.scene, resamples=resamples, seed=seed)
        # The same scenes are drawn for regions and for pictures.
        self._picture_draws = Draws.of(len(self.pictures), scenes, resamples=resamples, seed=seed)

    def of(
        self, models: Mapping[str, FloatArray], target: FloatArray, known: BoolArray, *, points: bool
    ) -> dict[str, Any]:
        """Figures of all models against one kind of label."""
        if not known.any() or not models:
            return {}
        for name, values in models.items():
            if values.shape != target.shape or not np.isfinite(values[known]).all():
                raise PocketiqaError(f"{name!r} gives no finite value for each of the {len(target)} regions")
        ordered = [own[known[own]] for own in self.pictures]
        of_picture = {name: _within(values, target, ordered) for name, values in models.items()}
        ceiling = np.array([_ceiling(target[own]) for own in ordered])
        figures_of: dict[str, Any] = {"ceiling": self._mean(ceiling), "models": {}, "gain": {}}
        first = next(iter(models))
        for name, values in models.items():
            # bootstrap_metrics leaves out what is not known; any number will do there.
            safe = np.where(known, values, 0.0)
            drawn = bootstrap_metrics(safe, target, self._region_draws, known)
            groups = self._region_draws.groups_in(known)
            figures = {
                metric: _figure(METRICS[metric](safe[known], target[known]), drawn[metric], groups, int(known.sum()))
                for metric in ("srcc", "plcc")
            }
            figures["within"] = self._mean(of_picture[name])
            if points and self._targets.distorted.any():
                figures["pointing"] = self._mean(_pointing(values, self._targets.distorted, self.pictures))
            figures_of["models"][name] = figures
            if name != first:
                figures_of["gain"][name] = self._mean(of_picture[first] - of_picture[name])
        return figures_of

    def _mean(self, values: FloatArray) -> dict[str, Any]:
        """Mean over the pictures that have a value, with its interval over resampled scenes."""
        there = np.isfinite(values)
        safe = np.where(there, values, 0.0)
        drawn = []
        for counts in self._picture_draws.counts():
            number = (counts * there).sum(1)
            drawn.append(np.where(number > 0, (counts @ safe) / np.maximum(number, 1), np.nan))
        mean = float(safe.sum() / there.sum()) if there.any() else float("nan")
        return _figure(mean, np.concatenate(drawn), self._picture_draws.groups_in(there), int(there.sum()))


def _figure(value: float, drawn: FloatArray, groups: int, number: int) -> dict[str, Any]:
    return {"value": value if np.isfinite(value) else None, "n": number} | interval(drawn, groups).as_dict()


def within_pictures(values: FloatArray, target: FloatArray, picture: NDArray[Any]) -> float | None:
    """Mean over pictures of their own SRCC; None where no picture has an order to know.

    Args:
        values: [R] of a model.
        target: [R] labels.
        picture: [R] number or name of the picture of each region.
    """
    each = _within(values, target, _by_picture(picture))
    return float(np.nanmean(each)) if np.isfinite(each).any() else None


def _by_picture(picture: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Positions of the regions of each picture."""
    number = np.unique(picture, return_inverse=True)[1]
    order = np.argsort(number, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(number[order])) + 1)


def _within(values: FloatArray, target: FloatArray, pictures: Sequence[NDArray[np.int64]]) -> FloatArray:
    """SRCC of each picture; NaN where its labels have no order, 0 where the model gives none."""
    correlations = []
    for own in pictures:
        if len(own) < MIN_IMAGES or np.ptp(target[own]) == 0:
            correlations.append(np.nan)
        else:
            correlations.append(0.0 if undefined(values[own], target[own]) else srcc(values[own], target[own]))
    return np.array(correlations)


def _ceiling(target: FloatArray) -> float:
    """SRCC with its labels of a model that orders equal labels at random and errs in nothing else."""
    if len(target) < MIN_IMAGES or np.ptp(target) == 0:
        return float("nan")
    # Equal labels share their mean rank; the covariance with any order of them is the variance of the shared ranks.
    return float(np.std(rankdata(target)) / np.std(np.arange(len(target))))


def _pointing(values: FloatArray, distorted: BoolArray, pictures: Sequence[NDArray[np.int64]]) -> FloatArray:
    """Per picture 1 if the distorted region alone has the lowest value, a part of 1 if others have it too; else 0."""
    hits = []
    for own in pictures:
        if distorted[own].sum() != 1 or len(own) < 2:
            hits.append(np.nan)
            continue
        lowest = values[own] == values[own].min()
        hits.append(float(lowest[distorted[own]].any()) / lowest.sum())
    return np.array(hits)
