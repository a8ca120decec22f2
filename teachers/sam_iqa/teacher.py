"""SAM-IQA behind the interface of all teachers: pixels in, scores and features out."""

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.images import ImageError
from pseudo_labels.records import Status, TeacherStamp
from teachers.base import Item, TeacherOutput, stack
from teachers.sam_iqa.model import SamIqa
from teachers.sam_iqa.trained import Trained, check_fits, read_trained, save_trained
from teachers.tensor_digest import tensor_digest

NAME = "sam_iqa"
VERSION = 1
"""Raised whenever scores change."""

UNFITTED = "none: this head was not fitted to opinion scores"


class SamIqaTeacher:
    """A model with what a teacher needs around it.

    Images are resized to a square, their aspect not kept (ours; see the package). Features: ``map``
    [channels, 16, 16], which the score is computed from, and ``pooled``, mean and deviation of its channels.

    Args:
        model: built; its encoder may be in lower precision.
        base: digest of the frozen part in full precision.
        precision: of the encoder, for the stamp.
        licence: of the frozen part.
    """

    feature_names = ("map", "pooled")

    def __init__(self, model: SamIqa, *, base: str, precision: str, licence: str):
        self.model = model.eval()
        self.needs_reference = model.config.form == "fr"
        self._base, self._precision = base, precision
        self._scale, self._licence = UNFITTED, licence

    @property
    def stamp(self) -> TeacherStamp:
        """Identity, with a digest of the weights as they are now (a second or more with ``trainable: all``)."""
        config = self.model.config
        return TeacherStamp(
            name=NAME,
            version=VERSION,
            weights=digest_of({"base": self._base, "trained": tensor_digest(self.trained_state())}),
            options={
                "variant": config.variant,
                "form": config.form,
                "input_side_px": config.input_side_px,
                "precision": self._precision,
                "segment-anything": metadata.version("segment-anything"),
            },
            scale=self._scale,
            licence=self._licence,
        )

    def to(self, device: torch.device | str) -> "SamIqaTeacher":
        """Compute on this device from now on."""
        self.model.to(device)
        return self

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Item:
        """Resize to the square input: uint8 [3, side, side], for the full-reference form a pair of them.

        Raises:
            ImageError: a side is smaller than a patch.
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
        resized = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.asarray(resized).transpose(2, 0, 1).copy())

    @torch.inference_mode()
    def __call__(self, batch: list[Any]) -> TeacherOutput:
        """Judge items of ``preprocess``; the score has no spread of its own."""
        quality = self.model(*stack(batch, self.model.encoder.mean.device))
        return TeacherOutput(quality.score, None, {"map": quality.map, "pooled": quality.pooled})

    def trained_state(self) -> dict[str, Tensor]:
        """What fitting changes, by parameter name."""
        return self.model.trained_state()

    def save_trained(self, path: str | Path, *, scale: str, licence: str) -> None:
        """Write what fitting changed, with the digest of the frozen base.

        Args:
            path: of the safetensors file.
            scale: what 0 and 1 mean, such as ``MOS of KonIQ-10k / 100``.
            licence: of weights and opinion scores, as far as known.

        Raises:
            PocketiqaError: the trained part is in lower precision.
        """
        save_trained(Path(path), self._trained(scale, licence))

    def _trained(self, scale: str, licence: str) -> Trained:
        config = self.model.config.as_dict()
        return Trained(NAME, config, self._base, self.trained_state(), scale, licence)

    def load_trained(self, path: str | Path) -> None:
        """Take over what was fitted before; scale and licence come with it.

        Raises:
            PocketiqaError: not there, or fitted in another model or on another base.
            TamperedError: damaged or altered.
        """
        trained = read_trained(Path(path))
        target = self._trained(self._scale, self._licence)
        check_fits(trained, target, Path(path))
        for name, value in target.tensors.items():
            value.copy_(trained.tensors[name])
        self._scale, self._licence = trained.scale, trained.licence
