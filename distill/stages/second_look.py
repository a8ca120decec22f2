"""``pocketiqa fit-look``: an exported student gets a second look, whose head is fitted on clean large photographs.

Each photograph is damaged at its own size (``distill.stress.large_copies``), and the reference teacher judges what a
display of 2 megapixels shows. A copy is to score as much of the photograph's own quick score as the teacher leaves it,
and of two copies that the display shows differently the worse one is to score lower. So a clean photograph scores
about alike in both looks, and no rating is needed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from distill.stress.large import LEAST_SHOWN, large_photographs
from distill.stress.large_copies import CLEAN, LADDERS, LargeCopy, Reference, large_copies
from pseudo_labels.defaults import MIN_FIT_PIXELS
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of, sha256_bytes
from pseudo_labels.outputs import new_file
from pseudo_labels.parallel import Progress
from students.export import with_look
from students.look import Head, SecondLook, parts
from students.runtime import Scorer
from students.session import read_model
from students.shipped import model_path

MIN_PHOTOGRAPHS = 5
# Photographs as they are count this much more than a copy: their score should be the same in both looks.
_CLEAN_WEIGHT = 3.0
# Of a visible difference, this fraction has to show in the scores of a pair.
_MARGIN = 0.3
_PAIR_WEIGHT = 0.1
# Logits of scores in [0.001, 0.999] span 14: weights beyond these bounds mean that the fit has failed.
_MOST_WEIGHT, _MOST_BIAS = 5.0, 5.0
_START = (0.0, 0.5, 0.2, 0.2)


def draft_look(model: str | None, *, texture: int, centre: int, spread: int, default: bool) -> SecondLook:
    """A second look without a head, whose crops are as large as the student's input.

    Raises:
        PocketiqaError: no such model, or a number of crops out of range.
    """
    side = Scorer(model, look="quick").contract.preprocess.max_side
    return SecondLook(
        Head(), crop_side=side, texture=texture, centre=centre, spread=spread,
        from_pixels=max(SecondLook.from_pixels, side**2), default=default,
    )  # fmt: skip


@dataclass(frozen=True)
class Observed:
    """A copy of a photograph as a student sees it.

    Attributes:
        photograph: number of the photograph.
        kind: see ``LargeCopy``, as is ``strength``.
        strength: see there.
        parts: [3], see ``students.look.parts``.
        reference: see ``LargeCopy``.
        quick: score of the photograph itself in one view.
    """

    photograph: int
    kind: str
    strength: float
    parts: np.ndarray
    reference: float
    quick: float


@dataclass(frozen=True)
class FittedLook:
    """A written file with a second look.

    Attributes:
        path: of the file.
        look: what was fitted.
        photographs: number of photographs.
        ordered_quick: fraction of visible pairs that the quick score orders rightly, on these very photographs.
        ordered_close: likewise the close score.
    """

    path: Path
    look: SecondLook
    photographs: int
    ordered_quick: float
    ordered_close: float


def fit_look(
    model: str | None,
    photographs: Sequence[Path],
    out: Path,
    reference: Reference,
    *,
    look: SecondLook,
    min_pixels: int = MIN_FIT_PIXELS,
    overwrite: bool = False,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> FittedLook:
    """Fit the head of a second look and write the student with it; the graph stays as it is, to the bit.

    Args:
        model: exported file or name; an earlier second look is replaced.
        photographs: image files of clean photographs, other ones than it will be measured on.
        out: .onnx file to write.
        reference: judges what a display shows.
        look: which crops are looked at; its head is not used.
        min_pixels: smaller photographs are left out, with a warning.
        overwrite: replace an existing file.
        progress: called with (done, total) after each photograph.
        warn: called with the reason for each photograph that cannot be used.

    Raises:
        PocketiqaError: no such model, or fewer than ``MIN_PHOTOGRAPHS`` that can be used.
        OutputConflictError: ``out`` exists.
    """
    with new_file(out, overwrite=overwrite) as file:
        path = model_path(model)
        data = read_model(path)
        scorer = Scorer(path, look="quick")
        observed: list[Observed] = []
        contents: list[str] = []
        every = large_photographs(photographs, min_pixels=min_pixels, warn=warn)
        for number, (name, rgb) in enumerate(every):
            observed += _observed(scorer, look, large_copies(rgb, reference, name=name), number)
            contents.append(sha256_bytes(rgb.tobytes()))
            if progress is not None:
                progress(len(contents), len(photographs))
        if len(contents) < MIN_PHOTOGRAPHS:
            raise PocketiqaError(
                f"{len(contents)} photographs of {min_pixels / 1e6:g} megapixels or more can be used, but "
                f"{MIN_PHOTOGRAPHS} are needed to fit a head: name more"
            )
        head = fit_head(observed)
        fitted = {"photographs": len(contents), "copies": len(observed), "pixels_digest": digest_of(sorted(contents))}
        look = replace(look, head=head, fitted=fitted)
        file.write(with_look(data, look, str(path)))
    quick = ordered(observed, Head(0.0, 1.0))
    return FittedLook(out, look, len(contents), quick, ordered(observed, head))


def _observed(scorer: Scorer, look: SecondLook, copies: Iterable[LargeCopy], number: int) -> list[Observed]:
    rows: list[Observed] = []
    quick = 0.0
    for copy in copies:
        whole = scorer.score(copy.rgb).score
        quick = quick if rows else whole
        seen = parts(whole, scorer.infer(look.crops(copy.rgb))[0])
        rows.append(Observed(number, copy.kind, copy.strength, parts=seen, reference=copy.reference, quick=quick))
    return rows


def visible_pairs(observed: Sequence[Observed]) -> list[tuple[int, int]]:
    """Positions of a copy and of the next worse one of its kind, where a display shows the two differently."""
    places = {(one.photograph, one.kind, one.strength): place for place, one in enumerate(observed)}
    pairs = []
    for number in sorted({one.photograph for one in observed}):
        for kind, strengths in LADDERS.items():
            ladder = [places[number, CLEAN, 0.0], *(places[number, kind, strength] for strength in strengths)]
            for better, worse in pairwise(ladder):
                if observed[better].reference - observed[worse].reference >= LEAST_SHOWN:
                    pairs.append((better, worse))
    return pairs


def ordered(observed: Sequence[Observed], head: Head) -> float:
    """Fraction of the visible pairs that a head orders rightly."""
    sums = np.array([one.parts for one in observed]) @ head.weights
    return float(np.mean([sums[better] > sums[worse] for better, worse in visible_pairs(observed)]))


def fit_head(observed: Sequence[Observed]) -> Head:
    """The head that comes closest to the targets of the module, with weights of 0 or more.

    Raises:
        PocketiqaError: no pair is visible.
    """
    pairs = np.array(visible_pairs(observed), np.int64).reshape(-1, 2)
    if not len(pairs):
        raise PocketiqaError("a display shows no difference between the copies: name photographs with more detail")
    features = np.array([one.parts for one in observed])
    references = np.array([one.reference for one in observed])
    targets = references * [one.quick for one in observed]
    weights = np.where(references == 1.0, _CLEAN_WEIGHT, 1.0)
    margins = _MARGIN * (references[pairs[:, 0]] - references[pairs[:, 1]])

    def loss(values: np.ndarray) -> float:
        scores = 1 / (1 + np.exp(-values[0] - features @ values[1:]))
        missing = np.maximum(0.0, margins - (scores[pairs[:, 0]] - scores[pairs[:, 1]]))
        return float((weights * (scores - targets) ** 2).sum() / weights.sum() + _PAIR_WEIGHT * missing.mean())

    bounds = [(-_MOST_BIAS, _MOST_BIAS), *[(0.0, _MOST_WEIGHT)] * features.shape[1]]
    # Four parameters: differences of the loss are gradient enough.
    fitted = minimize(loss, _START, bounds=bounds, method="L-BFGS-B").x
    # Digits beyond these mean nothing, and a file should not depend on the last bit of a library.
    return Head(*(round(float(value), 4) for value in fitted))
