"""Outputs of a student for pictures that are no photographs: in range, finite, repeatable, whatever the batch."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from students.runtime import Scorer

BATCH = 4
# One size for all, so that they fit into one batch; its sides differ, so that a model that confuses them fails.
_HEIGHT_PX, _WIDTH_PX = 384, 512
_TEXT = "The quick brown fox jumps over the lazy dog. 0123456789"

Outputs = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class OddImage:
    """Outputs of a student for one odd picture.

    Attributes:
        name: name of the picture, such as ``grey card``.
        score: score as the model gives it.
        in_range: score and quality map are in [0, 1], and all outputs are finite.
        repeatable: two sessions give the same bits: score, quality map and weight map.
        batch_difference: largest absolute difference of score or quality map between a batch of one and one of four;
            not finite where an output is not.
    """

    name: str
    score: float
    in_range: bool
    repeatable: bool
    batch_difference: float


@dataclass(frozen=True)
class OddImages:
    """Odd pictures together.

    Attributes:
        out_of_range: pictures that are not ``in_range``.
        unrepeatable: pictures that are not ``repeatable``.
        batch_difference: the largest.
        images: each picture, the worst case among them.
    """

    out_of_range: int
    unrepeatable: int
    batch_difference: float
    images: tuple[OddImage, ...]


def odd_pictures() -> dict[str, np.ndarray]:
    """Grey card, noise, black, white and text, by name; uint8 384x512x3, the same on every machine but for the font."""
    shape = (_HEIGHT_PX, _WIDTH_PX, 3)
    return {
        "grey card": np.full(shape, 119, np.uint8),  # 18 % reflectance in sRGB
        # A fixed seed: a fault that was found once is found again.
        "noise": np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8),
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "text": _text(),
    }


def _text() -> np.ndarray:
    page = Image.new("RGB", (_WIDTH_PX, _HEIGHT_PX), "white")
    draw = ImageDraw.Draw(page)
    for top_px in range(8, _HEIGHT_PX - 16, 20):
        draw.text((8, top_px), _TEXT, fill="black")
    return np.array(page)


def odd_images(scorer: Scorer, fresh: Scorer) -> OddImages:
    """Run the odd pictures alone, in a second session, and in batches of four.

    Args:
        scorer: the student.
        fresh: another scorer of the same model file.
    """
    names, pictures = zip(*odd_pictures().items(), strict=True)
    # Of one size, so that they fit into one batch.
    inputs = np.stack([scorer.contract.preprocess.resize(picture) for picture in pictures])
    together = _in_batches(scorer, inputs)
    faults = []
    for index, name in enumerate(names):
        alone, again = (session.infer(inputs[index : index + 1]) for session in (scorer, fresh))
        faults.append(_predicted(name, alone, again, together[index]))
    return OddImages(
        out_of_range=sum(not one.in_range for one in faults),
        unrepeatable=sum(not one.repeatable for one in faults),
        # np.max hands NaN on, where max may pass over it.
        batch_difference=float(np.max([one.batch_difference for one in faults])),
        images=tuple(faults),
    )


def _in_batches(scorer: Scorer, inputs: np.ndarray) -> list[Outputs]:
    """The outputs of each picture as one of ``BATCH``; the last batch overlaps the one before, to be whole."""
    outputs: dict[int, Outputs] = {}
    for start in range(0, len(inputs), BATCH):
        # A smaller last batch would be another batch size, and the check is about one and four.
        first = min(start, len(inputs) - BATCH)
        score, quality, weight = scorer.infer(inputs[first : first + BATCH])
        for position in range(BATCH):
            one = slice(position, position + 1)
            outputs[first + position] = score[one], quality[one], weight[one]
    return [outputs[index] for index in range(len(inputs))]


def _predicted(name: str, alone: Outputs, again: Outputs, batched: Outputs) -> OddImage:
    score, quality, _ = alone
    ranged = all(bool(((one >= 0) & (one <= 1)).all()) for one in (score, quality))
    with np.errstate(invalid="ignore"):  # infinite outputs: their difference is no number, which passes no limit
        differences = [np.abs(one - two).max() for one, two in zip(alone[:2], batched[:2], strict=True)]
    return OddImage(
        name=name,
        score=float(score[0]),
        in_range=ranged and all(bool(np.isfinite(one).all()) for one in alone),
        # Bytes, for equal NaN would not compare as equal, and 0.0 and -0.0 would.
        repeatable=all(one.tobytes() == two.tobytes() for one, two in zip(alone, again, strict=True)),
        batch_difference=float(np.max(differences)),
    )
