"""SAM-IQA with the interface of all teachers: pixels in, scores and features out."""

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError
from pseudo_labels.records import Status
from teachers.base import Item, TeacherOutput, stack
from teachers.fitting import FittableBase
from teachers.sam_iqa.model import SamIqa


class SamIqaTeacher(FittableBase[SamIqa]):
    """A SAM-IQA model as a teacher.

    Images are resized to a square without keeping their aspect ratio (ours; see the package). Features: ``map``
    [channels, 16, 16], which the score is computed from, and ``pooled`` [2 * channels], mean and deviation of its
    channels.

    Args:
        model: the model, still in float32.
        base: digest of the frozen weights, as in the checkpoint.
        precision: precision that the encoder will compute in, ``fp32`` or ``bf16``; recorded in the stamp.
        licence: licence of the encoder's weights.
        head: file of a fitted part; None for random weights.

    Raises:
        PocketiqaError: the head does not belong to the model.
    """

    version = 1
    feature_names = ("map", "pooled")

    def __init__(self, model: SamIqa, *, base: str, precision: str, licence: str, head: Path | None = None):
        super().__init__("sam_iqa", model, fitted_with=model.config.as_dict(), base=base, licence=licence, head=head)
        # Of the teacher, not of the class: the two forms are one class.
        self.needs_reference = model.config.form == "fr"
        self._precision = precision

    def stamp_options(self) -> dict[str, Any]:
        """Variant, form, input, precision and version of segment-anything, as JSON values."""
        config = self.model.config
        return {
            "variant": config.variant,
            "form": config.form,
            "input_side_px": config.input_side_px,
            "precision": self._precision,
            # Its code computes the features, so another release may give other scores.
            "segment-anything": metadata.version("segment-anything"),
        }

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Item:
        """Resize to the square input.

        Args:
            image: uint8 RGB [H, W, 3].
            reference: the clean image, of the same shape, for the full-reference form; not used in the other.

        Returns:
            uint8 [3, side, side]; for the full-reference form a pair of them, image and reference.

        Raises:
            ImageError: a side is shorter than a patch.
            PocketiqaError: the reference is missing or of another size.
        """
        self._refuse_small(image)
        if not self.needs_reference:
            return self._square(image)
        if reference is None:
            raise PocketiqaError("the full-reference form of sam_iqa needs the clean image; use form='nr' without one")
        if image.shape != reference.shape:
            sizes = (f"{array.shape[1]}x{array.shape[0]}" for array in (image, reference))
            raise PocketiqaError("the image is {}, but its reference {}".format(*sizes))
        return self._square(image), self._square(reference)

    def _refuse_small(self, image: np.ndarray) -> None:
        patch = self.model.config.sizes.patch_px
        height, width = image.shape[:2]
        if min(height, width) < patch:
            raise ImageError(Status.TOO_SMALL, f"{width}x{height} pixels: a patch of SAM has {patch}x{patch}")

    def _square(self, image: np.ndarray) -> Tensor:
        side = self.model.config.input_side_px
        # The only resampling; Pillow returns the pixels unchanged where the image has the size of the input.
        resized = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        # A copy, because torch needs memory that it may write to, and batches are faster from contiguous images.
        return torch.from_numpy(np.asarray(resized).transpose(2, 0, 1).copy())

    @torch.inference_mode()
    def __call__(self, batch: list[Any]) -> TeacherOutput:
        """Score items of ``preprocess``; one forward pass gives no standard deviation of a score."""
        quality = self.model(*stack(batch, self.model.encoder.mean.device))
        return TeacherOutput(quality.score, None, {"map": quality.map, "pooled": quality.pooled})
