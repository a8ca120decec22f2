"""Records of what scores mean, made from photographs and ratings: the work behind `population` and its neighbours."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from distill.evaluation.benchmarks import Benchmark, names_benchmark
from distill.scoring.inputs import ImageSource, Reading, find_inputs
from distill.scoring.rated import (
    Rated,
    StoredScores,
    csv_file,
    own_scores,
    rated_set,
    read_scores,
    score_files,
    scores_of,
    set_name,
    warn_of,
    with_scores,
)
from distill.terminal import console
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import DecodeLimits
from pseudo_labels.outputs import new_file
from students.meaning.intervals import LEVELS, Intervals, fit_intervals, measure_intervals
from students.meaning.own_scale import OwnScale, fit_own_scale
from students.meaning.population import Population, Stars, quantiles_of, star_thresholds, stars_of_model
from students.meaning.thresholds import measure_stars
from students.runtime import Scorer


def make_population(
    photographs: Sequence[str],
    out: Path,
    *,
    name: str | None = None,
    model: str | None = None,
    recursive: bool = False,
    workers: int = 1,
    max_pixels: int,
    overwrite: bool = False,
) -> Population:
    """Score photographs and write the population; arguments as for ``pocketiqa population``.

    Raises:
        PocketiqaError: photographs and rated sets are mixed, there are too few, or the model cannot be used.
        OutputConflictError: ``out`` exists.
    """
    is_rated = [names_benchmark(text) for text in photographs]
    if any(is_rated) and not all(is_rated):
        plain = photographs[is_rated.index(False)]
        raise PocketiqaError(
            f"rated sets and photographs without ratings, such as {plain!r}, make no population together: name either"
        )
    limits = DecodeLimits(max_pixels=max_pixels)
    with new_file(out, overwrite=overwrite) as file:
        scorer = Scorer(model, limits=limits)
        sets = [rated_set(text) for text in photographs] if all(is_rated) else []
        names = [set_name(*pair) for pair in zip(photographs, sets, strict=True)] if sets else []
        if sets:
            images = _images_of(sets)
        else:
            inputs = find_inputs(photographs, Reading(recursive), console.warn)
            images = inputs.images
            if not images:
                raise PocketiqaError("; ".join(inputs.empty))
        with console.progress(f"population ({scorer.contract.name})") as report:
            rows = score_files(
                images, scorer, out=out, limits=limits, workers=workers, overwrite=overwrite, report=report
            )
            of_path, bad = scores_of(rows)
        warn_of(bad)
        # Names alone: where photographs lie on this machine is nobody's business.
        about: dict[str, Any] = {"left_out": len(bad), "sources": [Path(text).name or text for text in photographs]}
        scores, stars = list(of_path.values()), stars_of_model(scorer.model)
        called = name or out.stem
        if sets:
            warn_of_learned(scorer, sets)
            rated = with_scores(names, sets, of_path)
            about |= {"sources": names, "parts": dict(sorted(Counter(rated.parts).items()))}
            scores, stars = rated.scores.tolist(), _chosen_stars(called, rated)
        today = date.today().isoformat()
        made = Population(
            name=called, model=scorer.model, date=today, n=len(scores), quantiles=quantiles_of(scores), about=about,
            stars=stars,
        )  # fmt: skip
        file.write(made.to_bytes())
    return made


def _images_of(sets: Sequence[Benchmark]) -> list[ImageSource]:
    return [ImageSource(row.path, Path(row.path)) for rated in sets for row in rated.rows]


def _chosen_stars(source: str, rated: Rated) -> Stars:
    thresholds = star_thresholds(rated.scores, rated.ratings)
    return Stars(thresholds, source, tuple(measure_stars(rated.scores, rated.ratings, rated.groups, rated.parts)))


def make_intervals(
    ratings: Sequence[str],
    out: Path,
    *,
    domain: str,
    model: str | None = None,
    scale: str | None = None,
    scores: Path | None = None,
    folds: bool = False,
    workers: int = 1,
    max_pixels: int,
    overwrite: bool = False,
) -> Intervals:
    """Write the record of intervals; arguments as for ``pocketiqa intervals``.

    Raises:
        PocketiqaError: too few scenes, no domain, scores of another model, or a data set that cannot be used.
        OutputConflictError: ``out`` exists.
    """
    if not domain.strip():
        raise PocketiqaError("--domain is empty: say what these photographs are, as intervals hold for such alone")
    if folds and scores is None:
        raise PocketiqaError("--folds is said of the scores of a file: name it with --scores FILE")
    with new_file(out, overwrite=overwrite) as file:
        work = _Work(ratings, out, model=model, scale=scale, max_pixels=max_pixels)
        rated = work.rated(scores, workers=workers, overwrite=overwrite, any_model=folds)
        if not folds:
            warn_of_learned(work.scorer, work.sets)
        pairs = rated.scores, rated.ratings, rated.groups
        spread, radius, n = fit_intervals(*pairs)
        made = Intervals(
            model=work.scorer.model,
            domain=domain.strip(),
            n=n,
            scenes=len(set(rated.groups)),
            spread=spread,
            radius=radius,
            date=date.today().isoformat(),
            measured=tuple(measure_intervals(*pairs, rated.parts)),
        )
        file.write(made.to_bytes())
    return made


def make_calibration(
    ratings: Sequence[str],
    out: Path,
    *,
    model: str | None = None,
    scale: str | None = None,
    scores: Path | None = None,
    workers: int = 1,
    max_pixels: int,
    overwrite: bool = False,
) -> OwnScale:
    """Write the map to one's own scale; arguments as for ``pocketiqa calibrate``.

    Raises:
        PocketiqaError: too few ratings, several scales, scores of another model, or ratings that cannot be used.
        OutputConflictError: ``out`` exists.
    """
    with new_file(out, overwrite=overwrite) as file:
        work = _Work(ratings, out, model=model, scale=scale, max_pixels=max_pixels)
        scales = {one.scale for one in work.sets}
        if len(scales) > 1:
            words = ", ".join(sorted(one.describe() for one in scales))
            raise PocketiqaError(f"the ratings are on several scales ({words}): calibrate on those of one scale")
        rated = work.rated(scores, workers=workers, overwrite=overwrite)
        warn_of_learned(work.scorer, work.sets)
        method, calibration, measured = fit_own_scale(rated.scores, rated.ratings, rated.groups)
        own = scales.pop()
        made = OwnScale(
            work.scorer.model, calibration, own.low, own.high, own.best, method=method,
            date=date.today().isoformat(), measured=measured,
        )  # fmt: skip
        file.write(made.to_bytes())
    return made


def warn_of_learned(scorer: Scorer, sets: Sequence[Benchmark]) -> None:
    """Say so if the model's contract names a data set that is called like one of these."""
    # Sources of a recipe are numbered: 1-biq2021.
    learned = {str(entry.get("name", "")).partition("-")[2] for entry in scorer.contract.data}
    for name in sorted(learned & {one.name for one in sets}):
        console.warn(
            f"{scorer.contract.name} has learned from photographs of {name}: if these are among them, its errors here "
            "are smaller than on any others"
        )


class _Work:
    """Rated sets and the model, opened before anything is scored."""

    def __init__(
        self, ratings: Sequence[str], out: Path, *, model: str | None, scale: str | None, max_pixels: int
    ) -> None:
        self._limits, self._out, self._ratings = DecodeLimits(max_pixels=max_pixels), out, ratings
        self.scorer = Scorer(model, limits=self._limits)
        self.sets: list[Benchmark] = [rated_set(text, scale) for text in ratings]
        self._names = [set_name(*pair) for pair in zip(ratings, self.sets, strict=True)]

    def rated(self, scores: Path | None, *, workers: int, overwrite: bool, any_model: bool = False) -> Rated:
        """Scores and ratings: stored scores if there are any, else the photographs are scored."""
        stored = self._stored(scores)
        if stored is not None:
            if not any_model:
                stored.check_model(self.scorer.model)
            rated = with_scores(self._names, self.sets, stored.of_path)
            if rated.left_out:
                console.warn(f"{rated.left_out} rated photographs have no score in {stored.path}")
            return rated
        with console.progress(f"score ({self.scorer.contract.name})") as report:
            rows = score_files(
                _images_of(self.sets), self.scorer, out=self._out, limits=self._limits, workers=workers,
                overwrite=overwrite, report=report,
            )  # fmt: skip
            of_path, bad = scores_of(rows)
        warn_of(bad)
        return with_scores(self._names, self.sets, of_path)

    def _stored(self, scores: Path | None) -> StoredScores | None:
        if scores is not None:
            return read_scores(scores)
        # A column of the ratings themselves, if there is one file of them.
        file = csv_file(self._ratings[0]) if len(self._ratings) == 1 else None
        stored = None if file is None else own_scores(file)
        if stored is not None:
            console.warn(f"the column score of {stored.path} is taken for the scores of {self.scorer.contract.name}")
        return stored


def population_summary(made: Population) -> Iterator[str]:
    """A population in a few lines."""
    middle = made.quantiles[len(made.quantiles) // 2]
    yield (
        f"{made.name}: {made.n} photographs scored by {made.model}, from {made.quantiles[0]:.3f} to "
        f"{made.quantiles[-1]:.3f}, half of them below {middle:.3f}"
    )
    if made.stars is None:
        yield "no stars and verdicts: none come with this model; make a population of rated photographs"
        return
    thresholds = ", ".join(f"{one:.3f}" for one in made.stars.thresholds)
    yield f"stars change at scores of {thresholds}, chosen on {made.stars.source}"
    if made.stars.source != made.name:
        return
    for record in made.stars.measured:
        caught, false = (_with_ends(record[name]) for name in ("caught", "false"))
        yield (
            f"  {record['part']}: of {record['poor']} photographs that people rated below 0.4, called poor {caught}; "
            f"of the other {record['n'] - record['poor']}, {false}; stars right {_with_ends(record['exact'])}, "
            f"within one {_with_ends(record['within_1'])}"
        )


def interval_summary(made: Intervals) -> Iterator[str]:
    """A record of intervals in a few lines."""
    yield f"intervals of {made.model} from {made.n} photographs; for these alone: {made.domain}"
    for level in LEVELS:
        widths = ", ".join(f"{2 * made.radius[level] * one:.3f}" for one in made.spread.errors)
        at = ", ".join(f"{one:.2f}" for one in made.spread.scores)
        where = f" at scores of {at}" if len(made.spread.scores) > 1 else ""
        yield f"{level} %: width {widths}{where}"
        for record in made.measured:
            if record["level"] == level:
                yield (
                    f"  {record['part']}: holds {_with_ends(record['coverage'])} of {record['n']} on left-out scenes, "
                    f"mean width {record['width']:.3f}"
                )


def calibration_summary(made: OwnScale) -> Iterator[str]:
    """A calibration in a few lines: what it was fitted to, and whether it helps."""
    measured, span = made.measured, made.high - made.low
    yield (
        f"{made.model} to {made.low:g} to {made.high:g} ({made.best} is best): {made.method}, fitted to "
        f"{measured['n']} photographs of {measured['scenes']} scenes"
    )
    for name in ("identity", "affine", "isotonic"):
        own = measured[name]
        gains = ", ".join(
            f"{what.upper()} {span * own[what]:.4f}"
            + ("" if name == "identity" else f" (less by {_with_ends(own[f'{what}_gain'], span)})")
            for what in ("rmse", "mae")
        )
        yield f"  {name}, on left-out scenes: {gains}"
    if measured["helps"]:
        yield "it helps: the interval of what it gains over the plain score lies above 0"
    else:
        yield (
            "it does not help: what it gains over the plain score, or over the mean rating, may be chance; use the "
            "score as it is, rate more, or check which end of --scale is best"
        )


def _with_ends(value: Sequence[float | None], factor: float = 1.0) -> str:
    middle, low, high = (None if one is None else one * factor for one in value)
    if middle is None:
        return "none"
    return f"{middle:.3f}" if low is None or high is None else f"{middle:.3f} [{low:.3f}, {high:.3f}]"
