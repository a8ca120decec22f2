"""The one evaluation of all models: metrics with n and interval, by subset, with paired differences and coverage.

The result is a dictionary of JSON values; the report shows it and adds nothing. A number that does not exist is null
and has a reason beside it.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.evaluation.predictions import Predictions
from distill.evaluation.targets import Targets
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.metrics.bootstrap import bootstrap_metrics
from pseudo_labels.metrics.correlation import METRICS, MIN_IMAGES, measure
from pseudo_labels.metrics.draws import LEVEL, Draws, fraction_above_zero, interval
from pseudo_labels.parallel import Progress
from pseudo_labels.records import Status

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# Version of the layout of the result.
FORMAT = 1
ALL, CLEAN, UNMARKED = "all", "clean", "unmarked"
# Images without a score that a result lists by name; their counts are complete.
_EXAMPLES = 20


def evaluate(
    predictions: Sequence[Predictions],
    targets: Targets,
    *,
    versus: str | None = None,
    overlapping: Collection[str] = (),
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate models on the same targets.

    Selections of images are reported where they differ: ``all``; ``clean``, without images that are known or detected
    near duplicates of training images; and ``unmarked``, without only those that the benchmark itself marks, which is
    what other papers can compare with. The headline is ``clean`` wherever it differs from ``all``.

    Args:
        predictions: one for each model, with distinct names.
        targets: ratings, or labels of a teacher.
        versus: name of the model that the others are compared with, image by image; the first if None.
        overlapping: ids of targets that the training data contains as well (see ``hash_overlap``).
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
        progress: called with (done, total) after each model and selection.

    Raises:
        PocketiqaError: no model, two of one name, or an unknown ``versus``.
    """
    names = [model.name for model in predictions]
    if not names or len(set(names)) < len(names):
        raise PocketiqaError(f"models {names}: give at least one, and each a name of its own")
    versus = names[0] if versus is None else versus
    if versus not in names:
        raise PocketiqaError(f"compare with {versus!r}: no such model, known: {', '.join(names)}")
    aligned = {model.name: model.aligned(targets.ids) for model in predictions}
    selections = select(targets, overlapping)
    # One set of resamples for all models and selections: differences of two models are then paired in each resample.
    draws = Draws.of(len(targets.ids), targets.groups, resamples=resamples, seed=seed)
    comparison = _Comparison(targets, draws, aligned, versus)
    steps, models = len(names) * len(selections), []
    for name in names:
        results = {}
        for selection, mask in selections.items():
            results[selection] = comparison.evaluate_model(name, mask)
            if progress:
                progress(len(models) * len(selections) + len(results), steps)
        model = aligned[name]
        models.append({"name": name, "kind": model.kind, "coverage": coverage(model), "selections": results})
    return {
        "format": FORMAT,
        "target": {"name": targets.name, "source": targets.source, "about": targets.about, "n": len(targets.ids)},
        "bootstrap": {"resamples": resamples, "seed": seed, "level": LEVEL, "groups": int(draws.groups.max()) + 1},
        "headline": CLEAN if CLEAN in selections else ALL,
        "selections": {name: {"n": int(mask.sum())} for name, mask in selections.items()},
        "excluded": {
            "near_train": int(sum(targets.near_training)),
            "overlapping": len(set(overlapping) & set(targets.ids)),
        },
        "versus": versus,
        "models": models,
    }


def select(targets: Targets, overlapping: Collection[str] = ()) -> dict[str, BoolArray]:
    """Masks of the selections, the headline first; each only where it differs from the others."""
    # ``near_training`` holds the detected near duplicates too; ``marked`` only those that the benchmark names itself.
    contained = set(overlapping)
    unmarked = ~np.array(targets.marked or targets.near_training, bool)
    clean = ~np.array(targets.near_training, bool) & np.array([id not in contained for id in targets.ids], bool)
    selections = {} if clean.all() else {CLEAN: clean}
    selections |= {} if unmarked.all() or (unmarked == clean).all() else {UNMARKED: unmarked}
    return selections | {ALL: np.ones(len(targets.ids), bool)}


def coverage(model: Predictions) -> dict[str, Any]:
    """How many images have a score, and why others have none."""
    bad = [position for position, status in enumerate(model.statuses) if status != Status.OK]
    counts = Counter(model.statuses[position].value for position in bad)
    return {
        "images": len(model.ids),
        "scored": len(model.ids) - len(bad),
        "without": dict(sorted(counts.items())),
        "examples": [
            {"id": model.ids[at], "status": model.statuses[at].value, "reason": model.reasons[at]}
            for at in bad[:_EXAMPLES]
        ],
    }


@dataclass(frozen=True)
class _Comparison:
    """Targets, resamples and predictions, all in the order of the targets."""

    targets: Targets
    draws: Draws
    models: Mapping[str, Predictions]
    versus: str

    def evaluate_model(self, name: str, mask: BoolArray) -> dict[str, Any]:
        """Metrics of one model on one selection, by subset too, and its difference to ``versus``."""
        scores = self.models[name].scores
        # Images without a score are left out, not counted as wrong; ``coverage`` shows how many there are.
        keep = mask & np.isfinite(scores)
        samples = self._samples(name, keep)
        subsets = {
            subset: keep & np.array([own == subset for own in self.targets.subsets])
            for subset in sorted(set(self.targets.subsets) - {""})
        }
        result = self._metrics(name, keep, samples)
        # A single subset would only repeat the whole.
        if len(subsets) > 1:
            drawn = {subset: self._samples(name, part) for subset, part in subsets.items()}
            result["subsets"] = {subset: self._metrics(name, part, drawn[subset]) for subset, part in subsets.items()}
            result["subset_mean"] = self._mean_of_subsets(result["subsets"], drawn)
        if name != self.versus:
            result["versus"] = self._paired(name, mask)
        return result

    def _samples(self, name: str, keep: BoolArray) -> dict[str, FloatArray]:
        return bootstrap_metrics(self.models[name].scores, self.targets.scores, self.draws, keep)

    def _metrics(self, name: str, keep: BoolArray, samples: Mapping[str, FloatArray]) -> dict[str, Any]:
        measured, fit = measure(self.models[name].scores[keep], self.targets.scores[keep])
        groups = self.draws.groups_in(keep)
        metrics = {}
        for metric, value in measured.items():
            metrics[metric] = value.as_dict() | interval(samples[metric], groups).as_dict()
        return {"n": int(keep.sum()), "groups": groups, "metrics": metrics, "mapping": fit.as_dict()}

    def _mean_of_subsets(
        self, subsets: Mapping[str, Mapping[str, Any]], drawn: Mapping[str, Mapping[str, FloatArray]]
    ) -> dict[str, Any]:
        """Each metric averaged over the subsets, so that a model gains nothing by recognising the subset."""
        # Below MIN_IMAGES every correlation is -1, 0, 1 or undefined, which an unweighted mean would count in full.
        used = [name for name, subset in subsets.items() if subset["n"] >= MIN_IMAGES]
        result: dict[str, Any] = {}
        for metric in METRICS:
            values = [subsets[name]["metrics"][metric]["value"] for name in used]
            missing = [name for name, value in zip(used, values, strict=True) if value is None]
            # A mean over fewer subsets would not compare with that of another model, so one missing value voids it.
            reason = f"no {metric} in {', '.join(missing)}" if missing else "" if used else "no subset is large enough"
            groups = min((subsets[name]["groups"] for name in used), default=0)
            mean = np.mean([drawn[name][metric] for name in used], axis=0) if used else np.full(1, np.nan)
            result[metric] = {"value": None if reason else float(np.mean(values)), "reason": reason}
            result[metric] |= interval(mean, groups).as_dict()
        return {"subsets": used, "metrics": result}

    def _paired(self, name: str, mask: BoolArray) -> dict[str, Any]:
        """Differences to ``versus`` on the images that both have scored, resampled together."""
        # Only images that both models have scored: a model must not gain by failing on difficult images.
        keep = mask & np.isfinite(self.models[name].scores) & np.isfinite(self.models[self.versus].scores)
        own, other = (measure(self.models[m].scores[keep], self.targets.scores[keep])[0] for m in (name, self.versus))
        own_drawn, other_drawn = self._samples(name, keep), self._samples(self.versus, keep)
        groups, result = self.draws.groups_in(keep), {}
        for metric in METRICS:
            difference, drawn = own[metric].value - other[metric].value, own_drawn[metric] - other_drawn[metric]
            fraction = fraction_above_zero(drawn)
            result[metric] = {
                "difference": None if np.isnan(difference) else difference,
                # The old word for a fraction: reports on disk have this key.
                "share_above_zero": None if np.isnan(fraction) else fraction,
                "reason": own[metric].reason or other[metric].reason,
            } | interval(drawn, groups).as_dict()
        return {"model": self.versus, "n": int(keep.sum()), "metrics": result}
