"""The result of a study as one dictionary of JSON values; table and page show it and add nothing."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.evaluation.evaluate import select
from distill.evaluation.paired import mean_difference
from distill.evaluation.predictions import Predictions
from distill.evaluation.targets import Targets
from distill.recipe.recipe import with_paths_expanded
from distill.study.cells import Cell
from distill.study.config import Study
from distill.study.evaluate import read_evaluation, read_sensitivity
from distill.study.run import read_costs
from distill.study.sensitivity import compared
from distill.study.sharing import SHARED, CellRun
from distill.study.worker import read_failure
from pseudo_labels.metrics.correlation import METRICS
from pseudo_labels.metrics.draws import LEVEL, Draws

FORMAT = 1
# Enough for the ends of a 95 % interval; all arms have the same ones (``_Table``).
RESAMPLES = 1000
_ORDER = (
    "fit",
    "merge",
    "pool",
    "distort",
    "label",
    "fuse",
    "distill",
    "export",
    "evaluate",
    "judge",
)  # "judge" in records of the first version
# Fixed, not the recipe's seed, which may be an axis: all runs are compared on the same resamples.
_SEED = 0

FloatArray = NDArray[np.float64]
Scored = Mapping[str, Predictions]


def build_result(study: Study, cells: Sequence[Cell], targets: Targets, commands: Mapping[str, str]) -> dict[str, Any]:
    """Gather what all runs have left in their folders.

    Args:
        study: the study.
        cells: all of its runs, whether they have run or not.
        targets: ratings that they are evaluated on.
        commands: name of a run to the command line that repeats it; ``""`` to that of the whole study.

    Returns:
        ``rows``: for each combination of values of the axes but the repeats, of each arm the metric of every repeat,
        their mean, standard deviation and number, of each arm but the baseline the paired difference, and
        ``sensitivity`` (see ``sensitivity.compared``); ``goal``; ``runs`` with their costs; and the facts on data and
        bootstrap.
    """
    runs = {cell.name: cell_run(cell, study.out) for cell in cells}
    scored = {name: own for name, run in runs.items() if (own := read_evaluation(run, targets))}
    moved = {name: own for name in scored if (own := read_sensitivity(runs[name]))}
    # The headline selection is the first: without images that the benchmark marks as near training images.
    selection, mask = next(iter(select(targets).items()))
    table = _Table(study, cells, scored, moved=moved, targets=targets, mask=mask)
    rows = [table.row(dict(zip(study.shown_axes, at, strict=True))) for at in _combinations(study)]
    return {
        "format": FORMAT,
        "name": study.name,
        "metric": study.metric,
        "axes": {axis: list(values) for axis, values in study.axes.items()},
        "repeats": study.repeats,
        "arms": list(study.arms),
        "baseline": study.compare.baseline if study.compare else None,
        "target": {"name": targets.name, "about": targets.about, "selection": selection, "n": int(mask.sum())},
        "bootstrap": {"resamples": RESAMPLES, "seed": _SEED, "level": LEVEL},
        "rows": rows,
        "goal": _goal(study, rows),
        "runs": [_run(cell, runs[cell.name], table, commands) for cell in cells],
        "command": commands[""],
    }


def _combinations(study: Study) -> list[tuple[str, ...]]:
    return list(itertools.product(*(study.axes[axis] for axis in study.shown_axes)))


class _Table:
    """Metrics and differences of a study's runs."""

    def __init__(
        self, study: Study, cells: Sequence[Cell], scored: Scored, *, moved: Mapping[str, Any], targets: Targets,
        mask: NDArray[np.bool_],
    ):  # fmt: skip
        self._study, self._targets, self._mask, self.scored, self._moved = study, targets, mask, scored, moved
        self._at = {(cell.arm, *cell.values.values()): cell for cell in cells}
        # One set of resamples for all cells: differences between arms are paired in each resample.
        self._draws = Draws.of(len(targets.ids), targets.groups, resamples=RESAMPLES, seed=_SEED)

    def value(self, cell: Cell) -> float | None:
        """The metric of one run; None if it has none."""
        own = self.scored.get(cell.name)
        # Each run on all images that it has scored; differences take only those that both arms have scored.
        return None if own is None else _number(self._metric(own, self._mask & np.isfinite(own.scores)))

    def row(self, values: Mapping[str, str]) -> dict[str, Any]:
        """All arms at one combination of values."""
        arms = {arm: self._arm(arm, values) for arm in self._study.arms}
        compare = self._study.compare
        others = [] if compare is None else [arm for arm in arms if arm != compare.baseline]
        differences = {arm: self._difference(arm, compare.baseline, values) for arm in others} if compare else {}
        moved = compared(
            {arm: self._sensitivities(arm, values) for arm in arms}, compare and compare.baseline, self._targets,
            self._draws,
        )  # fmt: skip
        return {"values": dict(values), "arms": arms, "differences": differences, "sensitivity": moved}

    def _sensitivities(self, arm: str, values: Mapping[str, str]) -> dict[str, Mapping[str, Any]]:
        names = {repeat: self._cell(arm, values, repeat).name for repeat in self._study.axes[self._study.repeats]}
        return {repeat: self._moved[name] for repeat, name in names.items() if name in self._moved}

    def _cell(self, arm: str, values: Mapping[str, str], repeat: str) -> Cell:
        at = {**values, self._study.repeats: repeat}
        return self._at[(arm, *(at[axis] for axis in self._study.axes))]

    def _arm(self, arm: str, values: Mapping[str, str]) -> dict[str, Any]:
        repeats = self._study.axes[self._study.repeats]
        by_repeat = {repeat: self.value(self._cell(arm, values, repeat)) for repeat in repeats}
        known = [value for value in by_repeat.values() if value is not None]
        return {
            "mean": statistics.fmean(known) if known else None,
            # Of a sample (n - 1): the seeds stand for all others that might have been drawn.
            "deviation": statistics.stdev(known) if len(known) > 1 else None,
            "low": min(known, default=None),
            "high": max(known, default=None),
            "n": len(known),
            "repeats": by_repeat,
        }

    def _difference(self, arm: str, baseline: str, values: Mapping[str, str]) -> dict[str, Any]:
        """Mean over the repeats of arm minus baseline; a repeat is compared with the same repeat."""
        # Pairs by repeat, for equal seeds draw equal images: what they have in common cancels out.
        pairs = []
        for repeat in self._study.axes[self._study.repeats]:
            names = (self._cell(own, values, repeat).name for own in (arm, baseline))
            own, other = (self.scored.get(name) for name in names)
            if own is not None and other is not None:
                pairs.append((own, other))
        return mean_difference(pairs, self._targets.scores, self._mask, self._draws, self._study.metric)

    def _metric(self, predictions: Predictions, keep: NDArray[np.bool_]) -> float:
        return METRICS[self._study.metric](predictions.scores[keep], self._targets.scores[keep])


def _goal(study: Study, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Whether the gain was reached at all of the values that the goal names; null until all runs there are done."""
    goal = study.compare.goal if study.compare else None
    if goal is None:
        return None
    wanted = [row for row in rows if all(row["values"][axis] == value for axis, value in goal.at.items())]
    differences = [row["differences"][goal.arm] for row in wanted]
    # Not before all repeats are there: a goal that seems reached after two of three seeds may still be missed.
    whole = all(one["n"] == len(study.axes[study.repeats]) for one in differences)
    # A difference without an interval reaches no goal: its missing end counts as 0.
    met = all(one["difference"] >= goal.gain and (one["low"] or 0.0) > 0 for one in differences) if whole else None
    return {**goal.stored(), "met": met}


def cell_run(cell: Cell, out: Path) -> CellRun:
    """The folders of a run."""
    # No command: these folders are only read here.
    return CellRun(with_paths_expanded(cell.recipe), cell.recipe.out, "", out / SHARED)


def _run(cell: Cell, run: CellRun, table: _Table, commands: Mapping[str, str]) -> dict[str, Any]:
    costs, failed = _costs(run), read_failure(run.out)
    return {
        "name": cell.name,
        "arm": cell.arm,
        "values": dict(cell.values),
        "state": "failed" if failed else "done" if cell.name in table.scored else "to do",
        "reason": failed,
        "value": table.value(cell),
        "stages": costs,
        "seconds": sum(cost["seconds"] for cost in costs.values()) if costs else None,
        "resumed": any(cost["resumed"] for cost in costs.values()),
        "peak_memory_bytes": max((cost["peak_memory_bytes"] for cost in costs.values()), default=None),
        "command": commands[cell.name],
    }


def _costs(run: CellRun) -> dict[str, dict[str, Any]]:
    """Costs of every stage in order; a stage whose output several runs use counts in full for each of them."""
    recipe = run.recipe
    homes = [(name, run.fitting_of(name).parent) for name in recipe.fits]
    homes += [("", run.pool_home)] if recipe.pool else []
    homes += [(name, run.labels_of(name).parent) for name in recipe.labellers]
    homes += [("", run.labels.parent)] if recipe.fuse else []
    costs = {
        f"{stage}-{name}" if name else stage: {**cost, "shared": home != run.out}
        for name, home in [*homes, ("", run.out)]
        for stage, cost in read_costs(home).items()
    }
    return {stage: costs[stage] for stage in sorted(costs, key=lambda stage: _ORDER.index(stage.partition("-")[0]))}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
