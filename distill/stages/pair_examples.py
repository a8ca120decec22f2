"""What a head on pairs learns from: photographs of one scene that people rated, and levels of one damage.

Of two rated photographs of one scene the one with the higher rating is better; of a photograph and its copies at rising
levels of one distortion each is better than the next.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.evaluation.benchmarks import Benchmark, BenchmarkRow, load_benchmark
from pseudo_labels.crops import generator
from pseudo_labels.distort.catalogue import check_image, distort
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError, load
from pseudo_labels.metrics.draws import folds_of
from pseudo_labels.parallel import Progress
from students.runtime import Scorer

RATED = "rated"
"""Kind of a pair of rated photographs; all others are names of distortions."""
KINDS = (
    *("gaussian_blur", "lens_blur", "motion_blur", "jpeg", "jpeg2000", "white_noise", "impulse_noise", "pixelate"),
    "darken",
)
"""Distortions whose every further level is worse; of contrast and colours that is not so."""
LEVELS = (1, 2, 3, 4, 5)
LEAST_GAP = 0.03
"""Difference of two ratings in [0, 1] below which nothing is learned: about the error of a mean of 30 observers."""
# Of a scene with 232 photographs all pairs would be most of what is learned.
_MOST_PAIRS = 100
# Rated photographs that are damaged too, of these ratings and above: the best of a scene, each of another scene.
_MOST_DAMAGED, _LEAST_RATING = 20, 0.6
_SEED = 0
Warn = Callable[[str], None]


@dataclass(frozen=True)
class PairExamples:
    """Photographs as a student sees them, and pairs of which the better is known.

    Attributes:
        embeddings: float64 [N, C].
        scores: float64 [N] in [0, 1].
        pairs: int64 [P, 2], positions of the better and of the worse.
        scenes: name of the scene of each pair; folds keep it whole.
        kinds: ``RATED``, or the distortion, of each pair.
        gaps: float64 [P], difference of the ratings; NaN of copies.
    """

    embeddings: NDArray[np.float64]
    scores: NDArray[np.float64]
    pairs: NDArray[np.int64]
    scenes: list[str]
    kinds: list[str]
    gaps: NDArray[np.float64]

    @property
    def is_rated(self) -> NDArray[np.bool_]:
        """[P], whether a pair is one of rated photographs."""
        return np.array([kind == RATED for kind in self.kinds], bool)


def rated_sets(names: Sequence[str]) -> list[Benchmark]:
    """The train parts of rated sets, or all of those without parts; each with photographs of one scene.

    Args:
        names: ``NAME:FOLDER`` each, as for `evaluate`.

    Raises:
        PocketiqaError: no such data set, or none has two photographs of one scene.
    """
    sets = [load_benchmark(name).usual("train") for name in names]
    if not any(_of_scenes(one) for one in sets):
        raise PocketiqaError(
            f"no two rated photographs of {', '.join(names) or 'no data set'} show one scene (column group), so "
            "nothing says which of two is better: name a set with such, as --ratings biq2021:FOLDER"
        )
    return sets


def _of_scenes(rated: Benchmark) -> dict[str, list[BenchmarkRow]]:
    scenes: dict[str, list[BenchmarkRow]] = {}
    for row in rated.rows:
        scenes.setdefault(row.group, []).append(row)
    return {name: rows for name, rows in scenes.items() if len(rows) > 1}


def observe(
    scorer: Scorer,
    sets: Sequence[Benchmark],
    clean: Sequence[Path],
    *,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> PairExamples:
    """Show all photographs and copies to a student.

    Args:
        scorer: a student with an embedding, that looks quickly.
        sets: rated photographs, see ``rated_sets``.
        clean: photographs to damage; the best rated ones are damaged as well.
        progress: called with (done, total) photographs, a damaged one counting once for each copy.
        warn: called with the reason for each photograph that cannot be used.

    Raises:
        PocketiqaError: no photograph can be used.
    """
    work = _Work(scorer, warn or (lambda words: None), progress)
    scenes = {f"{number}:{name}": rows for number, one in enumerate(sets) for name, rows in _of_scenes(one).items()}
    best = [(scene, max(rows, key=lambda row: row.score)) for scene, rows in scenes.items()]
    # By the order of folds, which follows from the names: the same photographs in every run.
    order = np.argsort(folds_of([scene for scene, _ in best], len(best) or 1, seed=_SEED), kind="stable")
    damaged = [best[place] for place in order if best[place][1].score >= _LEAST_RATING][:_MOST_DAMAGED]
    copies = len(KINDS) * len(LEVELS)
    work.total = sum(map(len, scenes.values())) + copies * (len(damaged) + len(clean)) + len(clean) + len(damaged)
    for scene, rows in scenes.items():
        work.rated(scene, rows)
    for scene, row in damaged:
        work.damaged(scene, Path(row.path), row.id)
    for path in clean:
        work.damaged(f"clean:{path.name}", path, path.name)
    return work.examples()


class _Work:
    def __init__(self, scorer: Scorer, warn: Warn, progress: Progress | None):
        self.total = 0
        self._scorer, self._warn, self._progress = scorer, warn, progress
        self._done = 0
        self._embeddings: list[NDArray[np.float32]] = []
        self._scores: list[float] = []
        self._pairs: list[tuple[int, int]] = []
        self._scenes: list[str] = []
        self._kinds: list[str] = []
        self._gaps: list[float] = []

    def rated(self, scene: str, rows: Sequence[BenchmarkRow]) -> None:
        """Rated photographs of one scene, and pairs of them."""
        seen = [(row, position) for row in rows if (position := self._file(Path(row.path))) is not None]
        pairs = [
            sorted(pair, key=lambda one: -one[0].score)
            for pair in combinations(seen, 2)
            if abs(pair[0][0].score - pair[1][0].score) >= LEAST_GAP
        ]
        if len(pairs) > _MOST_PAIRS:
            kept = generator(_SEED, scene).choice(len(pairs), _MOST_PAIRS, replace=False)
            pairs = [pairs[place] for place in sorted(kept)]
        for (better, first), (worse, second) in pairs:
            self._pair(first, second, scene, RATED, better.score - worse.score)

    def damaged(self, scene: str, path: Path, name: str) -> None:
        """A photograph, its copies at all levels of all distortions, and pairs of neighbouring levels."""
        try:
            rgb = check_image(load(path))
        except PocketiqaError as error:  # it cannot be decoded, or is too small to be damaged
            self._skip(path, error, 1 + len(KINDS) * len(LEVELS))
            return
        clean = self._picture(rgb)
        for kind in KINDS:
            copies = (distort(rgb, kind, level, seed=_SEED, image_id=name) for level in LEVELS)
            for first, second in pairwise([clean, *map(self._picture, copies)]):
                self._pair(first, second, scene, kind, float("nan"))

    def _file(self, path: Path) -> int | None:
        try:
            return self._picture(load(path))
        except ImageError as error:
            self._skip(path, error, 1)
            return None

    def _skip(self, path: Path, error: Exception, count: int) -> None:
        self._warn(f"{path} is left out: {error}")
        self._count(count)

    def _picture(self, rgb: np.ndarray) -> int:
        result = self._scorer.score(rgb)
        assert result.embedding is not None, "the caller has opened a student with one"
        self._embeddings.append(result.embedding)
        self._scores.append(result.score)
        self._count(1)
        return len(self._scores) - 1

    def _count(self, more: int) -> None:
        self._done += more
        if self._progress is not None:
            self._progress(self._done, self.total)

    def _pair(self, better: int, worse: int, scene: str, kind: str, gap: float) -> None:
        self._pairs.append((better, worse))
        self._scenes.append(scene)
        self._kinds.append(kind)
        self._gaps.append(gap)

    def examples(self) -> PairExamples:
        """All of it."""
        if not self._pairs:
            raise PocketiqaError("no photograph could be used: check the paths of the ratings and of the photographs")
        return PairExamples(
            embeddings=np.array(self._embeddings, np.float64),
            scores=np.array(self._scores, np.float64),
            pairs=np.array(self._pairs, np.int64),
            scenes=self._scenes,
            kinds=self._kinds,
            gaps=np.array(self._gaps, np.float64),
        )
