"""``pocketiqa fit-types``: an exported student gets a head that says what is wrong with a photograph.

The head is a multinomial logistic regression on the embedding over causes (``students.damage``), each type weighing the
same and each cause of a type too. It learns from what is clean and from damage that can be seen at the student's input
(levels 3 to 5); the straight lines of the strengths from all levels. How far the weights are held back is chosen on
folds of whole scenes, and what is stated comes from those folds. Last, "none" is made so much more likely that of clean
pictures of those folds one in five is called damaged: most photographs are not, and it costs little of what is found.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from distill.stages.head_fitting import FittedHead, opened_student, rounded, standard_of
from distill.stages.type_examples import LEVELS, TYPE_OF, TypeExamples, observe
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import sha256_bytes
from pseudo_labels.metrics.correlation import srcc
from pseudo_labels.metrics.draws import Draws, folds_of, interval
from pseudo_labels.outputs import new_file
from pseudo_labels.parallel import Progress
from students.damage import NONE, TYPES, TypeHead
from students.heads import FloatArray, halves

STRONG = (4, 5)
"""Levels of what is stated first: damage that anybody sees."""
LEARNED = (3, 4, 5)
"""Levels from which on the type is learned: much of what is weaker cannot be seen at a student's input."""
FREEDOMS = (0.03, 0.01, 0.003)
"""How freely the weights may grow (``C`` of scikit-learn)."""
FALSE_ALARMS = 0.2
"""Share of clean pictures of scenes that the head has not seen which it calls damaged."""
FEATURES = ".features"
"""Ending, in the place of .onnx, of the folder of embeddings beside the file that is written."""
_FOLDS, _LEAST_SCENES = 5, 10
_STEPS, _CONVERGED = 300, 1e-3
# Of the squared slopes of a strength, in units of the mean squared error of standardised numbers.
_SLOPE_PENALTY = 1.0


def fit_types(
    model: str | None,
    clean: Sequence[Path],
    out: Path,
    *,
    features: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> FittedHead[TypeHead]:
    """Fit the head and write the student with it; scores and maps stay as they are, to the bit.

    Args:
        model: exported file or name, in float or in 8 bits; its embedding gets what it lacks, and an earlier head on
            types is replaced.
        clean: image files of clean photographs, which are damaged.
        out: .onnx file to write.
        features: folder of embeddings, which are computed once; None is beside ``out``.
        overwrite: replace an existing file.
        progress: called with (done, total) pictures, then with fits.
        warn: see ``type_examples.observe``.

    Raises:
        PocketiqaError: no such model, one without features, or fewer than ten scenes.
        OutputConflictError: ``out`` exists, or ``features`` holds something else.
    """
    with new_file(out, overwrite=overwrite) as file:
        with opened_student(model) as student:
            graph = sha256_bytes(student.graph.SerializeToString())
            folder = features or out.with_suffix(FEATURES)
            examples = observe(student.scorer, graph, clean, folder, progress=progress, warn=warn)
        head = fit_head(examples, progress)
        head = replace(head, fitted={"model": student.digest, **head.fitted})
        data, digest = student.sealed(replace(student.contract, types=head))
        file.write(data)
    return FittedHead(out, head, digest)


def fit_head(examples: TypeExamples, progress: Progress | None = None) -> TypeHead:
    """The head, with what it does on scenes of other folds in ``fitted``.

    Raises:
        PocketiqaError: fewer than ten scenes.
    """
    scenes = len(set(examples.scenes))
    if scenes < _LEAST_SCENES:
        raise PocketiqaError(
            f"photographs of {scenes} scenes can be used, but {_LEAST_SCENES} are needed to fit a head: name more"
        )
    folds = folds_of(examples.scenes, _FOLDS)
    done, total = 0, len(FREEDOMS) * _FOLDS + 1

    def fit(keep: NDArray[np.bool_], freedom: float) -> TypeHead:
        nonlocal done
        head = _fitted(examples, keep, freedom)
        done += 1
        if progress is not None:
            progress(done, total)
        return head

    def held_out(freedom: float) -> tuple[FloatArray, FloatArray]:
        chances, strengths = (np.zeros((len(folds), len(TYPES))) for _ in range(2))
        for fold in range(_FOLDS):
            own = folds == fold
            chances[own], strengths[own] = fit(~own, freedom).judged(examples.embeddings[own])
        return chances, strengths

    judged = [held_out(freedom) for freedom in FREEDOMS]
    figures = [_macro_f1(examples, chances, STRONG) for chances, _ in judged]
    chosen = int(np.argmax(figures))
    chances, strengths = judged[chosen]
    favour = favour_of_none(chances[np.array(examples.types) == NONE])
    chances[:, TYPES.index(NONE)] *= np.exp(favour)
    head = fit(np.ones(len(folds), bool), FREEDOMS[chosen])
    biases = [bias + favour * (cause == NONE) for bias, cause in zip(head.biases, head.causes, strict=True)]
    fitted = {
        "freedom": FREEDOMS[chosen],
        "held_out_f1": {f"{one:g}": round(value, 4) for one, value in zip(FREEDOMS, figures, strict=True)},
        "favour_of_none": round(favour, 4),
        **measure(examples, chances / chances.sum(1, keepdims=True), strengths),
    }
    return replace(head, biases=rounded(biases), fitted=fitted)


def favour_of_none(chances: FloatArray) -> float:
    """What is added to the logit of "none", so that ``FALSE_ALARMS`` of these clean pictures are called damaged.

    0 if as few are without it.

    Args:
        chances: [N, len(TYPES)] of clean pictures.
    """
    at = TYPES.index(NONE)
    least = np.finfo(np.float64).tiny
    others = np.delete(chances, at, axis=1).max(1)
    behind = np.log(np.maximum(others, least)) - np.log(np.maximum(chances[:, at], least))
    return max(0.0, float(np.quantile(behind, 1 - FALSE_ALARMS)))


def _fitted(examples: TypeExamples, keep: NDArray[np.bool_], freedom: float) -> TypeHead:
    """The head of some of the pictures."""
    causes, levels = np.array(examples.causes)[keep], examples.levels[keep]
    values = examples.embeddings[keep]
    mean, scale = standard_of(values)
    values = (values - mean) * scale
    learned = (causes == NONE) | np.isin(levels, LEARNED)
    weights = _weights(causes[learned])
    fit = LogisticRegression(C=freedom, max_iter=_STEPS, tol=_CONVERGED)
    # In float32, half the time.
    fit.fit(values[learned].astype(np.float32), causes[learned], sample_weight=weights.astype(np.float32))
    names = [str(one) for one in fit.classes_]
    lines = [_line(values, levels, causes, cause) for cause in names]
    return TypeHead(
        mean=halves(mean),
        scale=halves(scale),
        causes=tuple(TYPE_OF[cause] for cause in names),
        weights=tuple(map(halves, fit.coef_)),
        biases=rounded(fit.intercept_),
        slopes=tuple(halves(slopes) for slopes, _ in lines),
        offsets=rounded([offset for _, offset in lines]),
    )


def _weights(causes: NDArray[Any]) -> FloatArray:
    """Weights of mean 1, by which each type counts the same, and each cause of a type."""
    counts = {cause: int((causes == cause).sum()) for cause in set(causes.tolist())}
    of_type = {one: sum(TYPE_OF[cause] == one for cause in counts) for one in TYPES}
    weights = np.array([1 / (counts[cause] * of_type[TYPE_OF[cause]]) for cause in causes.tolist()])
    return weights * len(weights) / weights.sum()


def _line(values: FloatArray, levels: NDArray[np.int64], causes: NDArray[Any], cause: str) -> tuple[FloatArray, float]:
    """Slopes [C] and offset of the strength of a cause: ridge regression of level / 5 on standardised numbers."""
    own = causes == cause
    if cause == NONE:
        return np.zeros(values.shape[1]), 0.0
    x, y = values[own], levels[own] / LEVELS[-1]
    centre, middle = x.mean(0), float(y.mean())
    x = x - centre
    # In the space of the pictures, of which there are fewer than numbers, or nearly so.
    gram = x @ x.T + _SLOPE_PENALTY * len(x) * np.eye(len(x))
    slopes = x.T @ np.linalg.solve(gram, y - middle)
    return slopes, middle - float(centre @ slopes)


def confusion_of(true: Iterable[str], named: Iterable[str]) -> NDArray[np.int64]:
    """[len(TYPES), len(TYPES)], how many pictures of each type (row) were called what (column)."""
    table = np.zeros((len(TYPES), len(TYPES)), np.int64)
    np.add.at(table, ([TYPES.index(one) for one in true], [TYPES.index(one) for one in named]), 1)
    return table


def f1_of(confusion: NDArray[Any]) -> FloatArray:
    """F1 of each type, all types being equally frequent; 0 where a type was never named rightly.

    Args:
        confusion: [..., T, T], rows true.
    """
    rows = confusion / np.maximum(confusion.sum(-1, keepdims=True), 1e-300)
    right = np.diagonal(rows, axis1=-2, axis2=-1)
    return 2 * right / np.maximum(rows.sum(-1) + rows.sum(-2), 1e-300)


def _chosen(examples: TypeExamples, levels: Sequence[int]) -> NDArray[np.bool_]:
    """Pictures of these levels, and those that are clean."""
    return np.isin(examples.levels, (0, *levels))


def _named(chances: FloatArray) -> list[str]:
    return [TYPES[at] for at in chances.argmax(1).tolist()]


def _macro_f1(examples: TypeExamples, chances: FloatArray, levels: Sequence[int]) -> float:
    keep = _chosen(examples, levels)
    true = [one for one, kept in zip(examples.types, keep, strict=True) if kept]
    return float(f1_of(confusion_of(true, _named(chances[keep]))).mean())


def measure(examples: TypeExamples, chances: FloatArray, strengths: FloatArray) -> dict[str, Any]:
    """How well types and strengths are told, JSON values.

    Args:
        examples: pictures.
        chances: [N, len(TYPES)], by heads that have not seen their scenes.
        strengths: [N, len(TYPES)], likewise.
    """
    true, named = np.array(examples.types), np.array(_named(chances))
    strong = _chosen(examples, STRONG)
    confusion = confusion_of(true[strong], named[strong])
    each = f1_of(confusion)
    right = (true == named) & (true != NONE)
    told = strengths[np.arange(len(true)), chances.argmax(1)]
    clean = true == NONE
    return {
        "pictures": len(true),
        "scenes": len(set(examples.scenes)),
        "strong": list(STRONG),
        "macro_f1": _with_ends(examples, named, strong, float(each.mean())),
        "f1": {one: round(float(value), 4) for one, value in zip(TYPES, each, strict=True)},
        "confusion": confusion.tolist(),
        "levels": {str(level): round(_macro_f1(examples, chances, (level,)), 4) for level in LEVELS},
        "kinds": {
            str(kind): [round(float(np.mean((named == true)[own])), 4), _most(named[own & (named != true)])]
            for kind in dict.fromkeys(examples.kinds)
            if (own := strong & (np.array(examples.kinds) == kind)).any()
        },
        "called_damaged": round(float(np.mean(named[clean] != NONE)), 4),
        "strength": {
            "srcc": _rounded_or_none(srcc(told[right], examples.levels[right])),
            "error": _rounded_or_none(float(np.abs(told - examples.levels / LEVELS[-1])[right].mean())),
        },
    }


def _rounded_or_none(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _most(names: NDArray[Any]) -> str:
    """The most frequent name; empty if there is none."""
    values, counts = np.unique(names, return_counts=True)
    return str(values[counts.argmax()]) if len(values) else ""


def _with_ends(
    examples: TypeExamples, named: NDArray[Any], keep: NDArray[np.bool_], value: float
) -> list[float | None]:
    """Macro F1 with its interval over scenes."""
    scenes = [scene for scene, kept in zip(examples.scenes, keep, strict=True) if kept]
    draws = Draws.of(len(scenes), scenes)
    numbers = sorted(set(draws.groups.tolist()))
    types = np.array(examples.types)[keep]
    tables = np.array(
        [confusion_of(types[own], named[keep][own]) for at in numbers if (own := draws.groups == at).any()]
    )
    firsts = [int(np.flatnonzero(draws.groups == at)[0]) for at in numbers]
    # A resample is a count of each scene, and so of its table.
    samples = np.concatenate([f1_of(np.tensordot(counts[:, firsts], tables, 1)).mean(-1) for counts in draws.counts()])
    ends = interval(samples, len(numbers))
    return [round(value, 4), *(None if np.isnan(end) else round(end, 4) for end in (ends.low, ends.high))]


def summary_lines(fitted: Mapping[str, Any]) -> list[str]:
    """What ``TypeHead.fitted`` says, for people; all of it of scenes that the head has not seen."""
    value, low, high = fitted["macro_f1"]
    ends = "" if low is None else f" ({low} to {high})"
    levels = ", ".join(f"{level}: {figure}" for level, figure in fitted["levels"].items())
    strength = fitted["strength"]
    worst = sorted(fitted["kinds"].items(), key=lambda one: one[1][0])[:5]
    return [
        f"{fitted['pictures']} pictures of {fitted['scenes']} scenes; levels {fitted['strong']}: macro F1 "
        f"{value}{ends}",
        "F1: " + ", ".join(f"{one} {figure}" for one, figure in fitted["f1"].items()),
        f"macro F1 by level: {levels}",
        f"clean ones called damaged: {fitted['called_damaged']}; strength of what was named rightly: SRCC "
        f"{strength['srcc']} with the level, mean error {strength['error']}",
        "named rightly least often: "
        + ", ".join(f"{kind} {right} (else {other})" if other else f"{kind} {right}" for kind, (right, other) in worst),
    ]


def confusion_table(fitted: Mapping[str, Any]) -> str:
    """The confusion of ``TypeHead.fitted`` in percent of each row, as Markdown."""
    rows = [["", *TYPES], ["---"] * (len(TYPES) + 1)]
    for one, row in zip(TYPES, fitted["confusion"], strict=True):
        rows.append([one, *(f"{100 * count / max(sum(row), 1):.0f}" for count in row)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
