"""DP-IQA behind the interface of all teachers: pixels in, scores and feature maps out."""

from dataclasses import asdict, dataclass
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
from teachers.base import TeacherOutput, stack
from teachers.dp_iqa.model import DpIqa
from teachers.dp_iqa.sources import Sources
from teachers.dp_iqa.trained import Trained, check_fits, read_trained, save_trained
from teachers.tensor_digest import tensor_digest

VERSION = 1
"""Raised whenever scores change."""

INTERPOLATIONS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Input:
    """How an image becomes the network's input.

    Attributes:
        side_px: of the square that it is resized to, its aspect not kept.
        interpolation: key of ``INTERPOLATIONS``, Pillow's, antialiased when they shrink. Which one the authors used is
            not known to us; bicubic is ours.
    """

    side_px: int = 512
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise PocketiqaError(f"interpolation is {self.interpolation!r}: choose {', '.join(INTERPOLATIONS)}")


class DpIqaTeacher:
    """A model with what a teacher needs around it.

    Scores are the network's output clamped to [0, 1]: nothing bounds the last linear layer. Feature: ``feature_map``, F
    of the paper, [8, 64, 64].

    Args:
        model: of ``sources``, in float32 still, so that its digest does not depend on the precision.
        image_input: how images are resized.
        sources: a fitted head that they name is loaded here.
        precision: that the model will compute in, for the stamp.
    """

    needs_reference = False
    feature_names = ("feature_map",)

    def __init__(self, model: DpIqa, image_input: Input, sources: Sources, precision: str = "fp32"):
        patch = model.patch_px
        if image_input.side_px < patch or image_input.side_px % patch:
            raise PocketiqaError(
                f"input_side_px is {image_input.side_px}, but a multiple of {patch} is needed, 0 for the native size"
            )
        self.model = model.eval()
        self._input, self._variant, self._precision = image_input, sources.variant, precision
        self._scale, self._licence = sources.scale, sources.licence
        self._base = tensor_digest(model.frozen_state())
        self._digest: tuple[tuple[int, ...], str] | None = None
        if sources.fitted_head is not None:
            self.load_trained(sources.fitted_head)
        self._trained_digest()  # now: moving or rounding the model later does not count as a change

    @property
    def stamp(self) -> TeacherStamp:
        """Identity, with a digest of the weights as they are now (seconds at full size after a change)."""
        conditioning = asdict(self.model.conditioning)
        if conditioning["posterior"] == "mode":
            del conditioning["seed"]
        return TeacherStamp(
            name="dp_iqa",
            version=VERSION,
            weights=digest_of({"base": self._base, "trained": self._trained_digest()}),
            options={
                "variant": self._variant,
                "precision": self._precision,
                "diffusers": metadata.version("diffusers"),
                **asdict(self._input),
                **conditioning,
            },
            scale=self._scale,
            licence=self._licence,
        )

    def _trained_digest(self) -> str:
        state = self.model.trained_state()
        # torch counts the changes of a tensor's values, so a billion of them are not hashed at every look.
        changes = tuple(value._version for value in state.values())
        if self._digest is None or self._digest[0] != changes:
            self._digest = (changes, tensor_digest(state))
        return self._digest[1]

    @property
    def fitted_with(self) -> dict[str, Any]:
        """What a fitted part is bound to, JSON values."""
        conditioning = self.model.conditioning
        return {
            "variant": self._variant,
            "trainable": self.model.trainable,
            "timestep": conditioning.timestep,
            "scale_input": conditioning.scale_input,
            **asdict(self._input),
        }

    def to(self, device: torch.device | str) -> "DpIqaTeacher":
        """Compute on this device from now on."""
        self.model.to(device)
        return self

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None = None) -> Tensor:
        """Resize to the square input: float32 [3, side, side] in [0, 1].

        Raises:
            ImageError: a side is smaller than the pixels of one latent.
        """
        height, width = image.shape[:2]
        smallest = self.model.latent_px
        if min(height, width) < smallest:
            raise ImageError(
                Status.TOO_SMALL, f"{width}x{height} pixels: a latent of DP-IQA covers {smallest}x{smallest}"
            )
        side = self._input.side_px
        resized = Image.fromarray(image).resize((side, side), INTERPOLATIONS[self._input.interpolation])
        return torch.from_numpy(np.asarray(resized, dtype=np.float32).transpose(2, 0, 1) / np.float32(255))

    @torch.inference_mode()
    def __call__(self, batch: list[Any]) -> TeacherOutput:
        """Judge items of ``preprocess``; the score has no spread of its own."""
        (images,) = stack(batch, self.model.unet.device)
        quality = self.model(images)
        return TeacherOutput(quality.score.clamp(0, 1), None, {"feature_map": quality.feature_map})

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
        save_trained(Path(path), Trained(self.fitted_with, self._base, self.trained_state(), scale, licence))

    def load_trained(self, path: str | Path) -> None:
        """Take over what was fitted before; scale and licence come with it.

        Raises:
            PocketiqaError: not there, or fitted in another model or on another base.
            TamperedError: damaged or altered.
        """
        trained = read_trained(Path(path))
        own = self.trained_state()
        check_fits(trained, self.fitted_with, self._base, own, Path(path))
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(trained.tensors[name])
        self._scale, self._licence = trained.scale, trained.licence
