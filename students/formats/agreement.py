"""How closely another form of a student repeats it: differences of scores, rank correlation, ratings of people.

Both forms run on the same bytes, so that only the network differs, not the decoding or the resize.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any

import numpy as np
from PIL import Image

from pseudo_labels.distort import distort
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.metrics.correlation import srcc
from students.contract import Calibration
from students.formats.photographs import Photographs
from students.preprocess import Preprocess, shrink

Run = Callable[[np.ndarray], Sequence[np.ndarray]]
"""A batch, uint8 [N, H, W, 3] -> raw scores [N], quality maps [N, h, w] and weight maps [N, h, w], each float32."""

MAX_FLOAT_DIFFERENCE = 1e-4
"""Largest accepted difference of a score where all arithmetic is in float32."""
MAX_HALF_DIFFERENCE = 3e-3
"""Largest accepted difference of a score where weights, or arithmetic too, are in float16."""
# One of each kind of damage, at a level that everybody sees: a student in use meets all of them, and the scores of
# undamaged photographs alone would hardly differ in rank.
_DAMAGE = ("white_noise", "gaussian_blur", "jpeg", "darken")
_LEVEL, _SEED = 3.0, 0
# Longer sides, as fractions of the largest input: a network of 8 bits errs differently in maps of another size.
_SCALES = (1.0, 0.8, 0.55)
_LEAST_IMAGES = 10


@dataclass(frozen=True)
class EightBitLimits:
    """What a form in 8 bits must keep.

    Attributes:
        srcc: least rank correlation with the float scores.
        mean: largest mean absolute difference of a score; the mean signed difference is then no larger.
        rated_loss: largest loss of SRCC with ratings of people.
    """

    srcc: float = 0.998
    mean: float = 0.005
    rated_loss: float = 0.003


@dataclass(frozen=True)
class Agreement:
    """Scores of two forms of one student, on the scale that users see (calibrated).

    Attributes:
        images: number of images compared.
        sizes: height and width of the inputs in pixels, each once.
        srcc: rank correlation of both forms' scores.
        mean: mean absolute difference.
        bias: mean difference, the other form minus the float one.
        largest: largest absolute difference.
        map_cell: largest absolute difference of a cell of the quality map.
    """

    images: int
    sizes: tuple[tuple[int, int], ...]
    srcc: float
    mean: float
    bias: float
    largest: float
    map_cell: float

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "sizes": [list(size) for size in self.sizes]}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Agreement":
        """Read the JSON form."""
        return cls(**{**record, "sizes": tuple((height, width) for height, width in record["sizes"])})


@dataclass(frozen=True)
class RatedAgreement:
    """Rank correlation of both forms with ratings of people, and how far their scores are apart.

    Attributes:
        name: where the ratings come from, such as "biq2021, train".
        images: number of rated images.
        srcc_float: SRCC of the float form.
        srcc: SRCC of the other form.
        mean: mean absolute difference of both scores.
        bias: mean difference, the other form minus the float one.
    """

    name: str
    images: int
    srcc_float: float
    srcc: float
    mean: float
    bias: float

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def damaged(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Each image as it is, and with noise, blur, compression and darkness that everybody sees; always the same ones."""
    for index, image in enumerate(images):
        yield image
        for name in _DAMAGE:
            yield distort(image, name, _LEVEL, seed=_SEED, image_id=str(index))


def inputs_of_several_sizes(images: Iterable[np.ndarray], preprocess: Preprocess) -> list[np.ndarray]:
    """Inputs to compare on: each photograph in three sizes, whole and damaged; fixed sizes take turns.

    Args:
        images: real photographs, uint8 HxWx3.
        preprocess: resize of the student; its result is reduced further for the smaller sizes.

    Returns:
        uint8 [1, H, W, 3] each.
    """
    inputs = []
    turns = cycle(preprocess.sizes)
    for image in damaged(map(preprocess.resize, images)):
        if preprocess.sizes:
            inputs += [shrink(image, next(turns))[None] for _ in _SCALES]
            continue
        for scale in _SCALES:
            smaller = Image.fromarray(image)
            width, height = (max(preprocess.min_side, round(side * scale)) for side in smaller.size)
            smaller.thumbnail((width, height))
            inputs.append(preprocess.resize(np.asarray(smaller))[None])
    return inputs


def measure_agreement(
    source: Run, other: Run, inputs: Sequence[np.ndarray], calibration: Calibration | None = None
) -> Agreement:
    """Run both forms on the same inputs.

    Args:
        source: the float form.
        other: the other form.
        inputs: uint8 [1, H, W, 3] each.
        calibration: raw score -> score.

    Raises:
        PocketiqaError: too few images for a rank correlation, another shape of an output, or a number that is not
            finite.
    """
    if len(inputs) < _LEAST_IMAGES:
        raise PocketiqaError(f"{len(inputs)} images to compare both forms on: at least {_LEAST_IMAGES} are needed")
    shown = calibration or (lambda raw: raw)
    scores, cells = np.zeros((len(inputs), 2)), 0.0
    for row, batch in zip(scores, inputs, strict=True):
        ours, theirs = source(batch), other(batch)
        for first, second in zip(ours[:3], theirs[:3], strict=True):
            if np.shape(first) != np.shape(second) or not np.isfinite(second).all():
                raise PocketiqaError(
                    f"the other form gives {np.shape(second)} for {np.shape(first)}, or what is not finite, on "
                    f"{batch.shape[2]}x{batch.shape[1]} pixels: it cannot be used"
                )
        row[:] = shown(np.asarray(ours[0]))[0], shown(np.asarray(theirs[0]))[0]
        cells = max(cells, float(np.abs(shown(np.asarray(ours[1])) - shown(np.asarray(theirs[1]))).max()))
    change = scores[:, 1] - scores[:, 0]
    return Agreement(
        images=len(inputs),
        sizes=tuple(sorted({(batch.shape[1], batch.shape[2]) for batch in inputs})),
        srcc=float(srcc(scores[:, 1], scores[:, 0])),
        mean=float(np.abs(change).mean()),
        bias=float(change.mean()),
        largest=float(np.abs(change).max()),
        map_cell=cells,
    )


def measure_rated(
    source: Run,
    other: Run,
    rated: Iterable[tuple[np.ndarray, float]],
    *,
    name: str,
    calibration: Calibration | None = None,
) -> RatedAgreement:
    """SRCC of both forms with ratings of people, and the differences of their scores.

    Args:
        source: the float form.
        other: the other form.
        rated: inputs, uint8 [1, H, W, 3], with their ratings; read once.
        name: where the ratings come from.
        calibration: raw score -> score.

    Raises:
        PocketiqaError: too few of them.
    """
    shown = calibration or (lambda raw: raw)
    rows = [
        (float(shown(np.asarray(source(batch)[0]))[0]), float(shown(np.asarray(other(batch)[0]))[0]), rating)
        for batch, rating in rated
    ]
    if len(rows) < _LEAST_IMAGES:
        raise PocketiqaError(f"{name} has {len(rows)} rated images that can be used: {_LEAST_IMAGES} are needed")
    ours, theirs, ratings = np.array(rows).T
    return RatedAgreement(
        name,
        len(rows),
        srcc_float=float(srcc(ours, ratings)),
        srcc=float(srcc(theirs, ratings)),
        mean=float(np.abs(theirs - ours).mean()),
        bias=float((theirs - ours).mean()),
    )


def check_eight_bits(agreement: Agreement, rated: RatedAgreement | None, limits: EightBitLimits, advice: str) -> None:
    """Refuse a form in 8 bits that does not keep the limits.

    Raises:
        PocketiqaError: naming each number out of its limit, and ``advice`` as the next step.
    """
    faults = []
    # Written so that NaN is a fault as well.
    if not agreement.srcc >= limits.srcc:
        faults.append(f"SRCC to the float scores {agreement.srcc:.4f}, at least {limits.srcc:g} is needed")
    if not agreement.mean <= limits.mean:
        faults.append(f"mean difference {agreement.mean:.4f}, at most {limits.mean:g} is allowed")
    if rated is not None and not rated.srcc >= rated.srcc_float - limits.rated_loss:
        faults.append(
            f"SRCC with the ratings of {rated.name} {rated.srcc:.4f} in place of {rated.srcc_float:.4f}, a loss of "
            f"{limits.rated_loss:g} is allowed"
        )
    if rated is not None and not rated.mean <= limits.mean:
        faults.append(f"mean difference {rated.mean:.4f} on {rated.name}, at most {limits.mean:g} is allowed")
    if faults:
        raise PocketiqaError(f"the export was refused: {'; '.join(faults)}; {advice}")


def check_float(agreement: Agreement, runtime: str, *, half: bool = False) -> None:
    """Refuse a form in float32 or float16 that does not repeat the scores.

    Args:
        agreement: what was measured.
        runtime: what ran the form, for the error.
        half: whether it is in float16.

    Raises:
        PocketiqaError: a score differs by more than ``MAX_FLOAT_DIFFERENCE`` or ``MAX_HALF_DIFFERENCE``.
    """
    limit = MAX_HALF_DIFFERENCE if half else MAX_FLOAT_DIFFERENCE
    if not agreement.largest <= limit:
        advice = "leave --half out" if half else "try another version of it, or stay with ONNX"
        raise PocketiqaError(
            f"the export was refused: {runtime} differs from ONNX Runtime by {agreement.largest:.2g} of the score "
            f"range, the limit is {limit:g}; {advice}"
        )


def measure_rounding(
    source: Run, photographs: Photographs, own: Preprocess, rounded: Preprocess, calibration: Calibration | None = None
) -> dict[str, float]:
    """What it costs that sides are rounded: how far scores of the same photographs are apart, on the same student.

    Args:
        source: the float form.
        photographs: whole ones.
        own: resize of the student.
        rounded: the same with sides rounded to multiples.
        calibration: raw score -> score.

    Returns:
        ``images`` compared, ``mean``, ``bias`` (rounded minus own) and ``largest`` difference of a score.

    Raises:
        PocketiqaError: no usable photograph.
    """
    shown = calibration or (lambda raw: raw)
    pairs = zip(photographs.resized(own, least=1), photographs.resized(rounded, least=1), strict=True)
    scores = np.array([[float(shown(np.asarray(source(image[None])[0]))[0]) for image in pair] for pair in pairs])
    change = scores[:, 1] - scores[:, 0]
    return {
        "images": len(change),
        "mean": float(np.abs(change).mean()),
        "bias": float(change.mean()),
        "largest": float(np.abs(change).max()),
    }
