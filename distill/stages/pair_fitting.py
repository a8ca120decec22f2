"""``pocketiqa fit-pairs``: an exported student gets a head that says which of two photographs of one moment is better.

The head is a logistic regression on differences of embeddings and of logits of scores (``students.pairs``). How far it
may go beyond the scores is chosen on folds of whole scenes: from "not at all" upwards.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.stages.head_fitting import FittedHead, opened_student, rounded, standard_of
from distill.stages.pair_examples import PairExamples, observe, rated_sets
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.metrics.draws import Draws, folds_of, interval
from pseudo_labels.outputs import new_file
from pseudo_labels.parallel import Progress
from students.heads import FloatArray, halves
from students.pairs import PairHead, logits

JUDGED_GAP = 0.1
"""Difference of two ratings in [0, 1] from which on a pair of rated photographs is counted in what is stated."""
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 1e6)
"""Of the squared weights of the embedding, in units of the mean loss; with the last one only the score counts."""
_FOLDS, _LEAST_SCENES = 10, 10
_STEPS, _CONVERGED = 100, 1e-9
# The weight of the score is not held back: this only keeps it finite where every pair is ordered rightly.
_SCORE_PENALTY = 1e-4
_UNALIKE = 0.99


def fit_pairs(
    model: str | None,
    ratings: Sequence[str],
    clean: Sequence[Path],
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> FittedHead[PairHead]:
    """Fit the head and write the student with it; scores and maps stay as they are, to the bit.

    Args:
        model: exported file or name, in float or in 8 bits; it gets an embedding if it has none, and an earlier head on
            pairs is replaced.
        ratings: rated sets with several photographs of one scene, see ``pair_examples.rated_sets``.
        clean: image files of clean photographs, which are damaged.
        out: .onnx file to write.
        overwrite: replace an existing file.
        progress: see ``pair_examples.observe``.
        warn: likewise.

    Raises:
        PocketiqaError: no such model, one without features, or fewer than ten scenes.
        OutputConflictError: ``out`` exists.
    """
    with new_file(out, overwrite=overwrite) as file:
        sets = rated_sets(ratings)
        with opened_student(model) as student:
            examples = observe(student.scorer, sets, clean, progress=progress, warn=warn)
        head = fit_head(examples)
        fitted = {"model": student.digest, "ratings": [one.name for one in sets], **head.fitted}
        head = replace(head, fitted=fitted)
        data, digest = student.sealed(replace(student.contract, pairs=head))
        file.write(data)
    return FittedHead(out, head, digest)


def fit_head(examples: PairExamples) -> PairHead:
    """The head, with what it does on scenes of other folds in ``fitted``.

    Raises:
        PocketiqaError: fewer than ten scenes, or not both kinds of pairs.
    """
    scenes = len(set(examples.scenes))
    rated = examples.is_rated
    if scenes < _LEAST_SCENES or rated.all() or not rated.any():
        raise PocketiqaError(
            f"{int(rated.sum())} pairs of rated photographs and {int((~rated).sum())} of damaged copies, of {scenes} "
            f"scenes, can be used: some of both and {_LEAST_SCENES} scenes are needed; name more photographs"
        )
    mean, scale = standard_of(examples.embeddings)
    features = np.column_stack([(examples.embeddings - mean) * scale, logits(examples.scores)])
    better, worse = examples.pairs.T
    differences = features[better] - features[worse]
    # People's pairs and the copies count the same, however many there are of each.
    weights = np.where(rated, 0.5 / max(1, rated.sum()), 0.5 / max(1, (~rated).sum()))
    folds = folds_of(examples.scenes, _FOLDS)
    held_out = [_held_out(differences, weights, folds, penalty) for penalty in PENALTIES]
    losses = [float(weights @ np.logaddexp(0, -margins)) for margins in held_out]
    chosen = int(np.argmin(losses))
    values = fit_weights(differences, weights, PENALTIES[chosen])
    fitted = {
        "penalty": PENALTIES[chosen],
        "held_out_loss": {f"{penalty:g}": round(loss, 4) for penalty, loss in zip(PENALTIES, losses, strict=True)},
        **measure(examples, held_out[chosen], differences[:, -1]),
    }
    return PairHead(
        mean=halves(mean), scale=halves(scale), weights=halves(values[:-1]), score=max(0.0, rounded(values)[-1]),
        alike=_alike(examples, features[:, :-1]), fitted=fitted,
    )  # fmt: skip


def _alike(examples: PairExamples, standardised: FloatArray) -> float:
    """The cosine that one in a hundred of pairs of different scenes exceeds, of one photograph a scene."""
    first_of = {scene: int(first) for (first, _), scene in zip(examples.pairs, examples.scenes, strict=True)}
    own = standardised[sorted(first_of.values())]
    own = own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12)
    cosines = (own @ own.T)[np.triu_indices(len(own), 1)]
    return float(np.clip(np.round(np.quantile(cosines, _UNALIKE), 4), 1e-4, 1.0))


def _held_out(differences: FloatArray, weights: FloatArray, folds: NDArray[np.int64], penalty: float) -> FloatArray:
    """[P]: difference of the strengths of each pair, by the head of the other folds."""
    margins = np.zeros(len(differences))
    for fold in np.unique(folds):
        own = folds == fold
        margins[own] = differences[own] @ fit_weights(differences[~own], weights[~own], penalty)
    return margins


def fit_weights(differences: FloatArray, weights: FloatArray, penalty: float) -> FloatArray:
    """Weights [F] of a logistic regression without a constant, by Newton's method.

    They minimise the weighted mean of log(1 + exp(-differences @ weights)), plus half of ``penalty`` times the squares
    of all but the last one.

    Args:
        differences: [P, F], features of the better photograph minus those of the worse; the last is that of the score.
        weights: [P], 0 or more.
        penalty: above 0.
    """
    share = weights / weights.sum()
    penalties = np.full(differences.shape[1], penalty)
    penalties[-1] = _SCORE_PENALTY
    values = np.zeros(differences.shape[1])

    def loss(candidate: FloatArray) -> float:
        return float(share @ np.logaddexp(0, -differences @ candidate) + 0.5 * penalties @ candidate**2)

    for _ in range(_STEPS):
        wrong = 0.5 - 0.5 * np.tanh(0.5 * (differences @ values))
        slope = penalties * values - differences.T @ (share * wrong)
        bend = (differences * (share * wrong * (1 - wrong))[:, None]).T @ differences + np.diag(penalties)
        step = np.linalg.solve(bend, slope)
        # Far from the minimum a whole step may overshoot; the loss is convex, so a shorter one gets lower.
        before, length = loss(values), 1.0
        while length > _CONVERGED and loss(values - length * step) > before:
            length /= 2
        values = values - length * step
        if np.abs(length * step).max() < _CONVERGED:
            break
    return values


def measure(examples: PairExamples, margins: FloatArray, score_margins: FloatArray) -> dict[str, Any]:
    """How often the better photograph is named, by the head and by the score alone, JSON values.

    Args:
        examples: pairs.
        margins: [P], difference of the strengths of each pair, by a head that has not seen its scene.
        score_margins: [P], difference of the logits of the scores.
    """
    kinds, right, plain = np.array(examples.kinds), margins > 0, score_margins > 0
    judged = examples.is_rated & (np.nan_to_num(examples.gaps) >= JUDGED_GAP)
    copies = ~examples.is_rated
    chance = 0.5 + 0.5 * np.tanh(0.5 * np.abs(margins))
    return {
        "gap": JUDGED_GAP,
        "rated": _counted(examples, right, plain, judged) | {"chance": _mean(chance[judged])},
        "copies": _counted(examples, right, plain, copies) | {"chance": _mean(chance[copies])},
        "kinds": {
            str(kind): [_mean(right[kinds == kind]), _mean(plain[kinds == kind])] for kind in np.unique(kinds[copies])
        },
    }


def _counted(
    examples: PairExamples, right: NDArray[np.bool_], plain: NDArray[np.bool_], keep: NDArray[np.bool_]
) -> dict[str, Any]:
    """Pairs, scenes, and accuracies with intervals over scenes."""
    if not keep.any():
        return {"pairs": 0, "scenes": 0}
    scenes = [scene for scene, kept in zip(examples.scenes, keep, strict=True) if kept]
    draws = Draws.of(len(scenes), scenes)
    both = np.column_stack([right[keep], plain[keep], right[keep].astype(float) - plain[keep]]).astype(np.float64)
    samples = np.concatenate([counts @ both / counts.sum(1, keepdims=True) for counts in draws.counts()])
    number = len(set(scenes))
    ends = [interval(samples[:, column], number) for column in range(both.shape[1])]
    named = zip(("accuracy", "score_accuracy", "gain"), both.mean(0), ends, strict=True)
    values = {
        name: [round(float(value), 4), *(None if np.isnan(end) else round(end, 4) for end in (one.low, one.high))]
        for name, value, one in named
    }
    return {"pairs": len(scenes), "scenes": number, **values}


def _mean(values: NDArray[Any]) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None


def summary_lines(fitted: Mapping[str, Any]) -> list[str]:
    """What ``PairHead.fitted`` says, for people; all of it of scenes that the head has not seen."""
    lines = []
    for name, what in (("rated", f"rated photographs {fitted['gap']:g} and more apart"), ("copies", "damaged copies")):
        part = fitted[name]
        if not part["pairs"]:
            lines.append(f"no pairs of {what}")
            continue
        accuracy, plain, gain = (_with_interval(part[key]) for key in ("accuracy", "score_accuracy", "gain"))
        lines.append(
            f"{part['pairs']} pairs of {what}, {part['scenes']} scenes: {accuracy} ordered rightly, by scores alone "
            f"{plain}; difference {gain}; mean probability {part['chance']}"
        )
    kinds = (f"{kind} {head} ({plain})" for kind, (head, plain) in fitted["kinds"].items())
    lines.append("neighbouring levels, and by scores alone: " + ", ".join(kinds))
    return lines


def _with_interval(values: Sequence[float | None]) -> str:
    value, low, high = values
    return f"{value}" if low is None else f"{value} ({low} to {high})"
