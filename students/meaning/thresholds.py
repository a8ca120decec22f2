"""How well stars and verdicts tell what people rated, on scenes that the thresholds were not chosen on."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudo_labels.defaults import SEED
from pseudo_labels.metrics.draws import Draws, folds_of, interval
from students.meaning.population import BANDS, star_thresholds, stars_of_all

POOR_BELOW = BANDS[1]
"""Rating below which a photograph is poor."""
POOR_STARS = 2
FRACTIONS = ("caught", "false", "exact", "within_1")
"""Fractions of a record of ``measure_stars``."""
FOLDS = 5
_RESAMPLES = 1000


def measure_stars(
    scores: ArrayLike,
    ratings: ArrayLike,
    groups: Sequence[str],
    parts: Sequence[str],
    *,
    seed: int = SEED,
) -> list[dict[str, Any]]:
    """Stars against ratings, where each photograph's thresholds were chosen on the other folds of scenes.

    Args:
        scores: [N] in [0, 1].
        ratings: [N] in [0, 1].
        groups: name of the scene of each photograph.
        parts: name of the part of the data to which each belongs; each is measured alone too.
        seed: seed of folds and resamples.

    Returns:
        A record for all, then for each part: ``part``, ``n``, ``scenes``, ``poor`` (rated below 0.4), ``caught``
        (fraction of these with 1 or 2 stars), ``false`` (fraction of the others with 1 or 2 stars), ``exact`` and
        ``within_1`` (fractions whose stars are those of their rating, or differ by one). Each fraction is a list:
        value, and the ends of its 95 % interval over scenes; null where it does not exist.
    """
    x, y, of_part = np.asarray(scores, np.float64), np.asarray(ratings, np.float64), np.asarray(parts, object)
    stars = held_out_stars(x, y, groups, seed=seed)
    rated, called_poor, poor = stars_of_all(y, BANDS), stars <= POOR_STARS, y < POOR_BELOW
    draws = Draws.of(len(x), list(groups), resamples=_RESAMPLES, seed=seed)
    records, hits, among = [], [], []
    for name, keep in _parts(of_part):
        scenes, n_poor = draws.groups_in(keep), int((keep & poor).sum())
        records.append({"part": name, "n": int(keep.sum()), "scenes": scenes, "poor": n_poor})
        hits += [called_poor, called_poor, stars == rated, np.abs(stars - rated) <= 1]
        among += [keep & poor, keep & ~poor, keep, keep]
    fractions = iter(_fractions(np.array(hits), np.array(among), draws))
    return [record | {name: next(fractions) for name in FRACTIONS} for record in records]


def held_out_stars(
    scores: NDArray[np.float64], ratings: NDArray[np.float64], groups: Sequence[str], *, seed: int = SEED
) -> NDArray[np.int64]:
    """Stars of each photograph by the thresholds of the folds that do not hold its scene: [N], 1 to 5."""
    fold, stars = folds_of(groups, FOLDS, seed), np.zeros(len(scores), np.int64)
    for number in range(FOLDS):
        own = fold == number
        if own.any() and not own.all():
            stars[own] = stars_of_all(scores[own], star_thresholds(scores[~own], ratings[~own]))
    return stars


def _parts(of_part: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    yield "all", np.ones(len(of_part), bool)
    names = sorted(set(of_part.tolist()))
    if len(names) > 1:
        yield from ((name, of_part == name) for name in names)


def _fractions(hits: NDArray[np.bool_], among: NDArray[np.bool_], draws: Draws) -> Iterator[list[float | None]]:
    """Value and 95 % interval of the fraction of each row of ``among`` [F, N] that ``hits`` [F, N]."""
    chunks = [(counts @ (among & hits).T, counts @ among.T) for counts in draws.counts()]
    parts, totals = (np.concatenate(one) for one in zip(*chunks, strict=True))
    for number, (hit, own) in enumerate(zip(hits, among, strict=True)):
        if not own.any():
            yield [None, None, None]
            continue
        total = totals[:, number]
        # A resample may hold none of them: it has no fraction.
        samples = parts[:, number] / np.where(total > 0, total, np.nan)
        ends = interval(samples, draws.groups_in(own))
        yield [_rounded(hit[own].mean()), _rounded(ends.low), _rounded(ends.high)]


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
