"""QFM-IQM with the interface of all teachers: pixels in, scores and features out."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from teachers.base import Item, TeacherOutput, stack
from teachers.fitting import FittableBase
from teachers.qfm_iqm.fit import QfmFit
from teachers.qfm_iqm.model import QfmIqm
from teachers.qfm_iqm.noise import NoiseSettings
from teachers.qfm_iqm.sensitivity import Sensitivity, sensitivity_among
from teachers.qfm_iqm.sizes import cut
from teachers.qfm_iqm.tokens import GateReport, report_gate


class QfmIqmTeacher(FittableBase[QfmIqm]):
    """A QFM-IQM model as a teacher.

    Scores are the network's output clamped to [0, 1]. Features: ``map`` [width, cells, cells], the selected features of
    each cell, and ``pooled`` [2 * width], of which the score is a linear function.

    Args:
        model: the model, still in float32.
        settings: settings of the noise during fitting; they change no score.
        base: digest of the frozen weights.
        precision: precision that the backbone will compute in, ``fp32`` or ``bf16``; recorded in the stamp.
        licence: licence of the backbone's weights.
        head: file of a fitted part; None for random weights.

    Raises:
        PocketiqaError: the head does not belong to the model.
    """

    version = 1
    feature_names = ("map", "pooled")
    needs_reference = False

    def __init__(
        self,
        model: QfmIqm,
        settings: NoiseSettings,
        *,
        base: str,
        precision: str,
        licence: str,
        head: Path | None = None,
    ):
        super().__init__("qfm_iqm", model, fitted_with=model.config.as_dict(), base=base, licence=licence, head=head)
        self.settings, self._precision = settings, precision

    def stamp_options(self) -> dict[str, Any]:
        """Sizes, input, precision and version of timm, as JSON values."""
        config = self.model.config.as_dict()
        # ``trainable`` changes no score by itself: the digest of the weights, also in the stamp, shows what was fitted.
        options = {name: value for name, value in config.items() if name != "trainable"}
        # Another release of timm may compute other features.
        return {**options, "precision": self._precision, "timm": metadata.version("timm")}

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Item:
        """Shrink and cut a uint8 RGB image [H, W, 3] to a size that the backbone takes, uint8 [3, h, w].

        Raises:
            ImageError: the image is too small for the backbone.
        """
        px = self.model.config.square_px
        return cut(image, self.model.backbone, self.model.config, None if px is None else (px, px))

    @torch.inference_mode()
    def __call__(self, batch: list[Any]) -> TeacherOutput:
        """Score items of ``preprocess``; one forward pass gives no standard deviation of a score."""
        quality = self.model(*stack(batch, self.model.backbone.mean.device))
        # Clamped here and not in the network: beyond the scale, a clamped score would have no gradient to fit with.
        return TeacherOutput(quality.score.clamp(0, 1), None, {"map": quality.map, "pooled": quality.pooled})

    def fitting_module(self) -> QfmFit:
        """The module to fit: the model with an empty memory and the settings of its noise."""
        return QfmFit(self.model, self.settings)

    def sensitivity(self, items: Sequence[Item], scores: Sequence[float]) -> Sensitivity:
        """Measure how much matched noise moves the scores of images that are matched with each other.

        Args:
            items: images, as ``preprocess`` returns them; of any sizes.
            scores: MOS of the images in [0, 1], by which they are matched.
        """
        device = self.model.backbone.mean.device
        pairs = zip(items, scores, strict=True)
        batches = ((stack([item], device)[0], torch.tensor([score], device=device)) for item, score in pairs)
        return sensitivity_among(self.model, batches, self.settings)

    def gate_report(self) -> GateReport:
        """Statistics of the learned feature selection."""
        return report_gate(self.model.decoder.gate.factors)
