"""OpenCV's BRISQUE as a teacher, to compare with: the classical measure without a reference.

Mittal, Moorthy and Bovik, "No-reference image quality assessment in the spatial domain", IEEE TIP 21(12), 2012. It
comes with OpenCV's contributed modules (``pip install opencv-contrib-python-headless``), its two files with their
source.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import sha256_file
from pseudo_labels.records import TeacherStamp
from teachers.base import TeacherOutput

# The worst end of BRISQUE's scale, which begins at 0. The clamp guards against a regression that leaves the scale.
_WORST = 100.0


class Brisque:
    """BRISQUE turned into a score in [0, 1], 1 best: 1 - BRISQUE / 100, clamped.

    Args:
        predictor: OpenCV's.
        files: SHA-256 of its two files.
    """

    needs_reference = False
    feature_names: tuple[str, ...] = ()

    def __init__(self, predictor: Any, files: dict[str, str]):
        self._predictor = predictor
        # The digests of its files belong to the stamp: BRISQUE that was fitted to other ratings is another teacher.
        self.stamp = TeacherStamp(
            "brisque", 1, weights="opencv", options=files, scale="1 - BRISQUE / 100", licence="Apache-2.0 (OpenCV)"
        )

    def to(self, device: torch.device) -> "Brisque":
        """OpenCV computes on the CPU."""
        return self

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Tensor:
        """The image as BGR, as OpenCV reads it: uint8 [H, W, 3]."""
        # torch takes no array with negative strides, which the reversed channels have until they are copied.
        return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1]))

    def __call__(self, batch: list[Tensor]) -> TeacherOutput:
        """Score one after another; there is no spread."""
        scores = [float(self._predictor.compute(item.numpy())[0]) for item in batch]
        return TeacherOutput(torch.tensor([1 - value / _WORST for value in scores]).clamp(0, 1))


def build_brisque(*, model: str | Path, range: str | Path) -> Brisque:
    """Build it.

    Args:
        model: OpenCV's ``brisque_model_live.yml``.
        range: OpenCV's ``brisque_range_live.yml``.

    Raises:
        PocketiqaError: OpenCV is not installed with its contributed modules, or a file cannot be read.
    """
    try:
        import cv2

        # OpenCV without its contributed modules can be imported, but has no ``quality``: an AttributeError.
        create = cv2.quality.QualityBRISQUE.create
    except (ImportError, AttributeError) as error:
        raise PocketiqaError(
            "BRISQUE needs OpenCV with its contributed modules: pip install opencv-contrib-python-headless"
        ) from error
    try:
        files = {"model": sha256_file(Path(model)), "range": sha256_file(Path(range))}
    except OSError as error:
        raise PocketiqaError(f"BRISQUE's file {error.filename} cannot be read: check the path") from error
    cv2.setNumThreads(1)  # as all others are timed
    try:
        return Brisque(create(str(model), str(range)), files)
    except cv2.error as error:
        raise PocketiqaError(f"OpenCV cannot read {model} and {range} as BRISQUE's model and range") from error
