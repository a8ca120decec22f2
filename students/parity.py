"""Does ONNX Runtime repeat what torch says? Measured on real photographs, whole and in parts of odd sizes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch

from pseudo_labels.errors import PocketiqaError
from students.model import PocketStudent
from students.session import INPUT, OUTPUTS, start_session

_BATCHES = (1, 3)
_ADVICE = "look for exploding activations, or try another version of onnxruntime"
# Odd and oblong sizes beside the images' own: where a size was frozen while tracing, they fail.
_ODD_SIZES = ((64, 64), (65, 97), (127, 71))


@dataclass(frozen=True)
class Parity:
    """How far the exported file is from the torch model on the CPU.

    Attributes:
        score: largest absolute difference of a score.
        quality_map: of a cell of the quality map.
        weight_map: of a cell of the weight map.
        limit: above which the export is refused.
        cases: number of batches compared.
        images: number of images in them.
        sizes: height and width of the images compared, each once.
        versions: of torch, onnx and onnxruntime.
    """

    score: float
    quality_map: float
    weight_map: float
    limit: float
    cases: int
    images: int
    sizes: tuple[tuple[int, int], ...]
    versions: dict[str, str]

    @property
    def worst(self) -> float:
        """The largest of the three; NaN if any output was not finite."""
        return float(np.max([self.score, self.quality_map, self.weight_map]))


def parity_cases(student: PocketStudent, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Batches of one and more images, resized as in use, and cut to odd sizes."""
    if not images:
        raise PocketiqaError("no images to compare ONNX Runtime with torch: give at least one photograph")
    resized = [student.config.preprocess.resize(image) for image in images]
    cases = [image[None] for image in resized]
    for index, (height, width) in enumerate(_ODD_SIZES):
        parts = [np.ascontiguousarray(_part(image, height, width, index)) for image in resized]
        cases += [np.stack([parts[at % len(parts)] for at in range(count)]) for count in _BATCHES]
    return cases


def _part(image: np.ndarray, height: int, width: int, index: int) -> np.ndarray:
    """A window of the image; a side that is too short is filled by repeating it."""
    rows = (np.arange(height) + index * 16) % image.shape[0]
    columns = (np.arange(width) + index * 16) % image.shape[1]
    return image[rows][:, columns]


def compare(
    student: PocketStudent, model: bytes, cases: Sequence[np.ndarray], limit: float, *, advice: str = _ADVICE
) -> Parity:
    """Run both on each batch.

    Args:
        student: on the CPU, in evaluation mode.
        model: serialised ONNX.
        cases: uint8 [N, H, W, 3] each, see ``parity_cases``.
        limit: of the absolute difference.
        advice: what the error says to do next.

    Raises:
        PocketiqaError: a difference above ``limit``, or a number that is not finite.
    """
    session = start_session(model, 1, "the exported graph")
    worst = np.zeros(len(OUTPUTS))
    for batch in cases:
        with torch.inference_mode():
            expected = student(torch.from_numpy(batch))[: len(OUTPUTS)]
        found = [np.asarray(value) for value in session.run(list(OUTPUTS), {INPUT: batch})]
        worst = np.maximum(worst, [_difference(a.numpy(), b) for a, b in zip(expected, found, strict=True)])
    parity = Parity(
        *map(float, worst),
        limit=limit,
        cases=len(cases),
        images=sum(len(batch) for batch in cases),
        sizes=tuple(sorted({(batch.shape[1], batch.shape[2]) for batch in cases})),
        versions={"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
    )
    # Written so that a NaN is refused as well.
    if not parity.worst <= limit:
        raise PocketiqaError(
            f"the export was refused: ONNX Runtime differs from torch by {parity.worst:.2g} of the score range, the "
            f"limit is {limit:g} (score {parity.score:.2g}, quality map {parity.quality_map:.2g}, weight map "
            f"{parity.weight_map:.2g}); {advice}"
        )
    return parity


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape:
        raise PocketiqaError(
            f"the export was refused: ONNX Runtime gives the shape {found.shape} where torch gives {expected.shape}"
        )
    return float(np.max(np.abs(expected.astype(np.float64) - found)))
