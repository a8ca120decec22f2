"""DP-IQA with the interface of all teachers: pixels in, scores and feature maps out."""

from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError
from pseudo_labels.records import Status
from teachers.base import TeacherOutput, stack
from teachers.checksummed import tensor_digest
from teachers.dp_iqa.model import DpIqa
from teachers.dp_iqa.sources import Sources
from teachers.fitting import FittableBase

INTERPOLATIONS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Input:
    """How an image is resized to the network's input.

    Attributes:
        side_px: side in pixels of the square that images are resized to, without keeping their aspect ratio.
        interpolation: key of ``INTERPOLATIONS``, filters of Pillow, antialiased when an image shrinks. The authors'
            filter is not known; bicubic is our choice.
    """

    side_px: int = 512
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if isinstance(self.side_px, bool) or not isinstance(self.side_px, int):
            raise PocketiqaError(f"input_side_px is {self.side_px!r}, but a whole number of pixels is needed")
        if self.interpolation not in INTERPOLATIONS:
            raise PocketiqaError(f"interpolation is {self.interpolation!r}: choose {', '.join(INTERPOLATIONS)}")


class DpIqaTeacher(FittableBase[DpIqa]):
    """A DP-IQA model as a teacher.

    Scores are the network's output clamped to [0, 1]: nothing bounds the last linear layer. The one feature is
    ``feature_map``, F of the paper, float32 [8, 64, 64] for ``sd15``.

    Args:
        model: model of ``sources``, still in float32, so that its digest does not depend on the precision.
        image_input: how images are resized.
        sources: origin of the weights; a fitted head that it names is loaded here.
        precision: precision that the model will compute in, ``fp32`` or ``bf16``; recorded in the stamp.

    Raises:
        PocketiqaError: the input side is no multiple of ``model.patch_px``, or the head does not belong to the model.
    """

    version = 1
    needs_reference = False
    feature_names = ("feature_map",)

    def __init__(self, model: DpIqa, image_input: Input, sources: Sources, precision: str = "fp32"):
        patch = model.patch_px
        if image_input.side_px < patch or image_input.side_px % patch:
            raise PocketiqaError(
                f"input_side_px is {image_input.side_px}, but a multiple of {patch} is needed, 0 for the native size"
            )
        # Settings that a head was fitted with: a file with others is refused. Precision and speed are not among them.
        # Neither is the posterior: a head that was fitted to samples may score by the mode.
        fitted_with = {
            "variant": sources.variant,
            "trainable": model.trainable,
            "timestep": model.conditioning.timestep,
            "scale_input": model.conditioning.scale_input,
            **asdict(image_input),
        }
        super().__init__(
            "dp_iqa",
            model,
            fitted_with=fitted_with,
            base=tensor_digest(model.frozen_state()),
            licence=sources.licence,
            head=sources.fitted_head,
            scale=sources.scale,
        )
        self._input, self._variant, self._precision = image_input, sources.variant, precision

    def stamp_options(self) -> dict[str, Any]:
        """Input, conditioning, precision and version of diffusers, as JSON values."""
        conditioning = asdict(self.model.conditioning)
        # The mode draws nothing: with a seed in the stamp, equal scores would count as those of different teachers.
        if conditioning["posterior"] == "mode":
            del conditioning["seed"]
        return {
            "variant": self._variant,
            "precision": self._precision,
            # Its code computes the taps, so another release may give other scores.
            "diffusers": metadata.version("diffusers"),
            **asdict(self._input),
            **conditioning,
        }

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None = None) -> Tensor:
        """Resize uint8 RGB [H, W, 3] to the square input, float32 [3, side, side] in [0, 1].

        Raises:
            ImageError: a side is shorter than one latent, 8 pixels for Stable Diffusion.
        """
        height, width = image.shape[:2]
        smallest = self.model.latent_px
        if min(height, width) < smallest:
            raise ImageError(
                Status.TOO_SMALL, f"{width}x{height} pixels: a latent of DP-IQA covers {smallest}x{smallest}"
            )
        side = self._input.side_px
        # The only resampling; Pillow returns the pixels unchanged where the image has the size of the input.
        resized = Image.fromarray(image).resize((side, side), INTERPOLATIONS[self._input.interpolation])
        return torch.from_numpy(np.asarray(resized, dtype=np.float32).transpose(2, 0, 1) / np.float32(255))

    @torch.inference_mode()
    def __call__(self, batch: list[Any]) -> TeacherOutput:
        """Score items of ``preprocess``; one forward pass gives no standard deviation of a score."""
        (images,) = stack(batch, self.model.unet.device)
        quality = self.model(images)
        return TeacherOutput(quality.score.clamp(0, 1), None, {"feature_map": quality.feature_map})
