"""How well an adapted student ranks photographs that it was not adapted to, against two simpler answers.

Unadapted is the score as it is; calibrated is the score through a rising curve that was fitted to the same ratings
(``pocketiqa calibrate``). All are judged on folds of whole scenes: the SRCC of each fold, whose photographs one model
ranks, averaged by its photographs. So a calibration, which changes no order, is about as good as the score itself, but
for the ties and the noise of its curve.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.metrics.bootstrap import Ranker, weighted_pearson
from pseudo_labels.metrics.correlation import srcc
from pseudo_labels.metrics.draws import Draws, interval
from students.contract import StudentContract

FloatArray = NDArray[np.float64]
Folds = NDArray[np.int64]

UNADAPTED, CALIBRATED, ADAPTED = "unadapted", "calibrated", "adapted"
BLOCKS = "blocks"
"""Name of the candidate whose last blocks were trained; the others are heads, by their penalty."""


class NotBetterError(PocketiqaError):
    """Adapting does not rank other photographs better than what needs no new model."""


def srcc_of_folds(scores: FloatArray, ratings: FloatArray, folds: Folds) -> float:
    """Mean of the SRCC of each fold, by its photographs; one whose scores are all alike counts 0.

    Args:
        scores: [N].
        ratings: [N].
        folds: [N], number of the fold.
    """
    own = [folds == fold for fold in np.unique(folds)]
    values = [srcc(scores[keep], ratings[keep]) for keep in own]
    return float(np.average(np.nan_to_num(values), weights=[keep.sum() for keep in own]))


def best_candidate(held_out: Mapping[str, FloatArray], ratings: FloatArray) -> str:
    """The candidate with the least squared error; the first of equal ones.

    Not the one with the highest SRCC, though that is what is judged: of 100 ratings the SRCC of one or another penalty
    is the higher one by chance, while errors change little from one to the next (docs/meaning.md).
    """
    return min(held_out, key=lambda name: float(np.mean((held_out[name] - ratings) ** 2)))


def chosen_without(held_out: Mapping[str, FloatArray], ratings: FloatArray, folds: Folds, fold: int) -> str:
    """The candidate that is best on all folds but one: what is chosen for a fold has not seen how well it does there.

    Args:
        held_out: scores [N] of each candidate, each photograph's by a model of the other folds.
        ratings: [N].
        folds: [N].
        fold: the one left out.
    """
    keep = folds != fold
    return best_candidate({name: scores[keep] for name, scores in held_out.items()}, ratings[keep])


def chosen_scores(held_out: Mapping[str, FloatArray], ratings: FloatArray, folds: Folds) -> FloatArray:
    """Scores [N] of the whole procedure, choice included: of each fold those of ``chosen_without`` it."""
    scores = np.empty(len(ratings))
    for fold in np.unique(folds).tolist():
        keep = folds == fold
        scores[keep] = held_out[chosen_without(held_out, ratings, folds, fold)][keep]
    return scores


def measure(
    scores: Mapping[str, FloatArray], ratings: FloatArray, folds: Folds, groups: Sequence[str]
) -> dict[str, Any]:
    """SRCC of the three and what adapting gains, each with a 95 % interval over scenes; JSON values.

    Args:
        scores: [N] of ``UNADAPTED``, ``CALIBRATED`` and ``ADAPTED``, on the scale of the ratings from 0 to 1.
        ratings: [N].
        folds: [N].
        groups: scene of each photograph.

    Returns:
        ``srcc`` and ``rmse`` by name, ``gain`` in SRCC over ``UNADAPTED`` and ``CALIBRATED``.
    """
    draws = Draws.of(len(ratings), groups)
    scenes = len(set(groups))
    values = {name: srcc_of_folds(own, ratings, folds) for name, own in scores.items()}
    samples = {name: _resampled(own, ratings, folds, draws) for name, own in scores.items()}
    plain = (UNADAPTED, CALIBRATED)
    return {
        "srcc": {name: _with_ends(values[name], samples[name], scenes) for name in scores},
        "gain": {
            name: _with_ends(values[ADAPTED] - values[name], samples[ADAPTED] - samples[name], scenes) for name in plain
        },
        "rmse": {name: round(float(np.sqrt(np.mean((own - ratings) ** 2))), 4) for name, own in scores.items()},
    }


def _resampled(scores: FloatArray, ratings: FloatArray, folds: Folds, draws: Draws) -> FloatArray:
    """``srcc_of_folds`` in each resample [R]; of SRCC alone, as the other metrics of ``bootstrap`` take longer."""
    own = [folds == fold for fold in np.unique(folds)]
    rankers = [(Ranker(scores[keep]), Ranker(ratings[keep])) for keep in own]
    values = []
    for counts in draws.counts():
        parts = [counts[:, keep] for keep in own]
        # A resample may lack the photographs of a fold, which then has no SRCC.
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.array(
                [
                    weighted_pearson(part, *(one.ranks(part) for one in pair))
                    for part, pair in zip(parts, rankers, strict=True)
                ]
            )
        weights = np.array([part.sum(1) for part in parts]) * np.isfinite(each)
        total = weights.sum(0)
        values.append(np.where(total > 0, (np.nan_to_num(each) * weights).sum(0) / np.maximum(total, 1), np.nan))
    return np.concatenate(values)


def _with_ends(value: float, samples: FloatArray, scenes: int) -> list[float | None]:
    ends = interval(samples, scenes)
    return [None if np.isnan(one) else round(float(one), 4) for one in (value, ends.low, ends.high)]


def check_better(measured: Mapping[str, Any]) -> None:
    """Refuse an adapted student whose gain may be chance.

    Raises:
        NotBetterError: an interval of the gain does not lie above 0.
    """
    lows = {name: gain[1] for name, gain in measured["gain"].items()}
    if all(low is not None and low > 0 for low in lows.values()):
        return
    three = "; ".join(f"{name} {text(value)}" for name, value in measured["srcc"].items())
    gains = " and ".join(f"{text(value)} over {name}" for name, value in measured["gain"].items())
    raise NotBetterError(
        f"nothing is written: on photographs of other scenes the SRCC with your ratings is {three}; a gain of {gains} "
        "may be chance. Rate more photographs, or use the model as it is, with `pocketiqa calibrate` for your own scale"
    )


def text(value: Sequence[float | None]) -> str:
    """A value with its interval, for people."""
    middle, low, high = value
    if middle is None:
        return "none"
    return f"{middle:.3f}" if low is None or high is None else f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def summary_lines(record: Mapping[str, Any]) -> list[str]:
    """What the contract's ``metrics["adaptation"]`` says, for people."""
    ratings, lines = record["ratings"], []
    lines.append(
        f"{record['source']['name']} adapted to {ratings['images']} ratings of {ratings['scenes']} scenes "
        f"({ratings['name']}): {_trained(record)}"
    )
    for name, value in record["srcc"].items():
        gain = "" if name == ADAPTED else f"; adapting gains {text(record['gain'][name])}"
        lines.append(f"  {name}, on scenes of other folds: SRCC {text(value)}, RMSE {record['rmse'][name]:.3f}{gain}")
    return lines


def _trained(record: Mapping[str, Any]) -> str:
    if record["trained"] == BLOCKS:
        return f"heads, then {', '.join(record['parts'])} trained"
    return f"heads fitted, penalty {record['penalty']:g}"


def adapted_card(contract: StudentContract, digest: str, dropped: Sequence[str]) -> str:
    """The model card as Markdown.

    Args:
        contract: of the written file.
        digest: hex SHA-256 of its model.
        dropped: what the file no longer holds, a sentence each.
    """
    record = contract.metrics["adaptation"]
    ratings, source = record["ratings"], record["source"]
    first, *rest = summary_lines(record)
    lines = [
        f"# {contract.name}",
        "",
        f"{contract.name} is {source['name']} adapted to {ratings['images']} ratings of one's own: on photographs of "
        f"other scenes its SRCC with them is {text(record['srcc'][ADAPTED])}, unadapted "
        f"{text(record['srcc'][UNADAPTED])}.",
        "",
        "## Results",
        "",
        f"- {first}.",
        *(f"- {line.strip()}." for line in rest),
        f"- Judged in {record['folds']} folds of whole scenes; what is written was fitted to all of them, and each "
        "choice in a fold was made on the others. Brackets are 95 % intervals, from 1,000 resamples of scenes.",
        "",
        "## Data",
        "",
        f"- {ratings['images']} rated photographs of {ratings['scenes']} scenes, {ratings['name']}, digest "
        f"{ratings['digest'][:12]}; scale: {ratings['scale']}.",
        f"- Began as {source['name']}, model {source['sha256'][:12]} (SHA-256), whose own data and teachers its card "
        f"names; this file is model {digest[:12]}.",
        "",
        "## Limits",
        "",
        "- It says what the people who gave these ratings would say of photographs like these. Of other photographs it "
        "knows less than the student that it began as, and it was not measured on them.",
        "- Populations, intervals and calibrations of other models are not for it: make them anew.",
        *(f"- {sentence}" for sentence in dropped),
        "",
    ]
    return "\n".join(lines)
