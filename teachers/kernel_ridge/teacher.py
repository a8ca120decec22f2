"""Kernel ridge regression with the interface of all teachers: pixels in, scores out."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pseudo_labels.errors import PocketiqaError
from teachers.base import Item, TeacherOutput, stack
from teachers.fitting import FittableBase
from teachers.kernel_ridge.model import KernelRidge
from teachers.qfm_iqm.sizes import cut


class KernelRidgeTeacher(FittableBase[KernelRidge]):
    """A kernel ridge model as a teacher (``fitting.SolvableTeacher``). Scores are clamped to [0, 1]; no features.

    Args:
        model: the model, still in float32.
        base: digest of the backbone's weights.
        precision: precision that the backbone will compute in, ``fp32`` or ``bf16``; recorded in the stamp.
        licence: licence of the backbone's weights.
        head: file of a solved part; None for none yet.

    Raises:
        PocketiqaError: the head does not belong to the model.
    """

    version = 1
    feature_names = ()
    needs_reference = False

    def __init__(self, model: KernelRidge, *, base: str, precision: str, licence: str, head: Path | None = None):
        super().__init__(
            "kernel_ridge", model, fitted_with=model.config.as_dict(), base=base, licence=licence, head=head
        )
        self._precision = precision

    def stamp_options(self) -> dict[str, Any]:
        """Sizes, input, precision and version of timm, as JSON values."""
        # Another release of timm may compute other features.
        return {**self.model.config.as_dict(), "precision": self._precision, "timm": metadata.version("timm")}

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Item:
        """Shrink and cut a uint8 RGB image [H, W, 3] to a size that the backbone takes, uint8 [3, h, w].

        Raises:
            ImageError: the image is too small for the backbone.
        """
        return cut(image, self.model.backbone, self.model.config)

    @torch.inference_mode()
    def __call__(self, batch: list[Any]) -> TeacherOutput:
        """Score items of ``preprocess``; one look gives no standard deviation of a score."""
        return TeacherOutput(self.model(*stack(batch, self.model.backbone.mean.device)).clamp(0, 1))

    @torch.inference_mode()
    def summarise(self, batch: list[Any]) -> np.ndarray:
        """See ``fitting.SolvableTeacher.summarise``."""
        return self.model.summarise(*stack(batch, self.model.backbone.mean.device)).cpu().numpy()

    def solve(
        self, summaries: np.ndarray, target: np.ndarray, weight: np.ndarray, groups: Sequence[str], seed: int
    ) -> np.ndarray:
        """See ``fitting.SolvableTeacher.solve``."""
        unseen = self.model.solve(summaries, target, weight, groups, seed)
        self.forget_digest()
        return unseen

    def fitting_module(self) -> nn.Module:
        """There is nothing to train by gradients.

        Raises:
            PocketiqaError: always.
        """
        raise PocketiqaError("kernel_ridge is solved at once and not trained: fit it with `pocketiqa fit-teacher`")
