"""Does the score know every kind of distortion? The order of levels within a photograph, by distortion and effect."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from distill.stress.ordering import LEVELS, Ladder
from distill.stress.verdict import Verdict, mean_interval
from pseudo_labels.distort import CATALOGUE, effects
from pseudo_labels.metrics.correlation import falling_srcc
from pseudo_labels.metrics.draws import Interval

# Slight changes of brightness, contrast, colour and sharpness are a matter of taste; strong ones are not.
STRONG_LEVELS = (3, 4, 5)
# More of these is worse to the eye from the first level on.
PLAIN_EFFECTS = ("blur", "noise", "compression", "spatial")


@dataclass(frozen=True)
class LevelLimits:
    """What a student must reach.

    Attributes:
        least_srcc: mean SRCC of the five levels within a photograph, for each of ``PLAIN_EFFECTS``.
        least_srcc_strong: mean SRCC of ``STRONG_LEVELS`` within a photograph, for each other effect.
        most_above: fraction of photographs of which the copy of level 5 scores above the original, for each
            distortion.
    """

    least_srcc: float = 0.9
    least_srcc_strong: float = 0.6
    most_above: float = 0.02


@dataclass(frozen=True)
class LevelFigures:
    """One row of the table: a distortion, or all distortions of one effect.

    Attributes:
        name: name of the distortion or effect.
        distortions: the distortions it is the mean of.
        srcc: over photographs, mean SRCC between the levels 1 to 5 and falling scores, in [-1, 1]; a photograph whose
            copies all score the same counts 0.
        srcc_strong: the same of ``STRONG_LEVELS`` alone, of which there are few: within a photograph it is 1, 0.5,
            -0.5 or -1 (or between, where scores are equal).
        above: fraction of photographs of which the copy of level 5 scores above the original.
        drops: mean of the original's score minus the copy's, at each of the levels 1 to 5.
        intervals: 95 % intervals over photographs of ``srcc``, ``srcc_strong`` and ``above``.
    """

    name: str
    distortions: tuple[str, ...]
    srcc: float
    srcc_strong: float
    above: float
    drops: tuple[float, ...]
    intervals: Mapping[str, Interval] = field(compare=False)


@dataclass(frozen=True)
class LevelTable:
    """The order of levels, of all distortions of the catalogue.

    Attributes:
        photographs: number of photographs.
        effects: figures by effect, in the order of ``catalogue.EFFECTS``.
        distortions: figures by distortion, in the order of the catalogue.
        scores: by distortion and photograph, the scores of the original and of the levels 1 to 5.
    """

    photographs: int
    effects: dict[str, LevelFigures]
    distortions: dict[str, LevelFigures]
    scores: dict[str, dict[str, tuple[float, ...]]]


def level_table(scored: Iterable[Ladder]) -> LevelTable:
    """Summarise ladders of all distortions of the catalogue, of the same photographs each; at least one photograph."""
    by_distortion: dict[str, list[Ladder]] = {name: [] for name in CATALOGUE}
    for ladder in scored:
        by_distortion[ladder.distortion].append(ladder)
    cases = {name: [_Case(ladder) for ladder in own] for name, own in by_distortion.items()}
    return LevelTable(
        photographs=len(next(iter(cases.values()))),
        effects={effect: _figures(effect, [cases[name] for name in names]) for effect, names in effects().items()},
        distortions={name: _figures(name, [own]) for name, own in cases.items()},
        scores={name: {one.photograph: one.scores for one in own} for name, own in by_distortion.items()},
    )


class _Case:
    """What one ladder says."""

    def __init__(self, ladder: Ladder):
        clean, *copies = ladder.scores
        self.distortion = ladder.distortion
        self.srcc = falling_srcc(copies, LEVELS)
        strong = [copies[level - 1] for level in STRONG_LEVELS]
        self.srcc_strong = falling_srcc(strong, STRONG_LEVELS)
        self.above = float(copies[-1] > clean)
        self.drops = tuple(clean - copy for copy in copies)


def _figures(name: str, columns: Sequence[Sequence[_Case]]) -> LevelFigures:
    """Figures of some distortions; ``columns`` are the cases of each, photographs in one order."""
    # Photographs, not cases, are drawn for the intervals: the copies of one photograph are no independent ones.
    means = {
        figure: [fmean(getattr(case, figure) for case in row) for row in zip(*columns, strict=True)]
        for figure in ("srcc", "srcc_strong", "above")
    }
    drops = zip(*(case.drops for column in columns for case in column), strict=True)
    return LevelFigures(
        name,
        tuple(column[0].distortion for column in columns),
        srcc=fmean(means["srcc"]),
        srcc_strong=fmean(means["srcc_strong"]),
        above=fmean(means["above"]),
        drops=tuple(map(fmean, drops)),
        intervals={figure: mean_interval(values) for figure, values in means.items()},
    )


def level_verdicts(table: LevelTable, limits: LevelLimits | None = None) -> dict[str, Verdict]:
    """What must be reached, by name of the row: the order of each effect, and of each distortion the worst copies."""
    limits = limits or LevelLimits()
    made = {}
    for name, row in table.effects.items():
        plain = name in PLAIN_EFFECTS
        figure, limit = ("srcc", limits.least_srcc) if plain else ("srcc_strong", limits.least_srcc_strong)
        words = "levels 1 to 5" if plain else "levels 3 to 5"
        made[name] = _verdict(f"{name}, SRCC of {words}", row, figure, limit, at_least=True, n=table.photographs)
    for name, row in table.distortions.items():
        words = f"{name}, level 5 above the original"
        made[name] = _verdict(words, row, "above", limits.most_above, at_least=False, n=table.photographs)
    return made


def _verdict(words: str, row: LevelFigures, figure: str, limit: float, *, at_least: bool, n: int) -> Verdict:
    interval = row.intervals[figure]
    value = getattr(row, figure)
    return Verdict(words, value, limit, at_least, n=n, low=interval.low, high=interval.high, of_photographs=True)
