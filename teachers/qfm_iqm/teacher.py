"""QFM-IQM behind the interface of all teachers: pixels in, scores and features out."""

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
from teachers.qfm_iqm.tokens import GateReport, frame, report_gate


class QfmIqmTeacher(FittableBase[QfmIqm]):
    """A model with what a teacher needs around it.

    Features: ``map`` [width, cells, cells], what was selected at each place, and ``pooled`` [2 * width], of which the
    score is a linear function.

    Args:
        model: built, in full precision still.
        settings: of the noise while fitting; they change no score.
        base: digest of what is frozen.
        precision: that the backbone will compute in, for the stamp.
        licence: of the backbone's weights.
        head: file of a fitted part.
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
        """The sizes, the input, and what computes."""
        config = self.model.config.as_dict()
        # What is trained is told by the weights, and a depth left out by the shapes in them.
        options = {name: value for name, value in config.items() if name != "trainable"}
        return {**options, "precision": self._precision, "timm": metadata.version("timm")}

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Item:
        """Shrink and cut the image to what the backbone takes: uint8 [3, H, W].

        Raises:
            ImageError: too small.
        """
        backbone, config = self.model.backbone, self.model.config
        factor = 2**config.halvings
        square = None if config.square_px is None else (config.square_px, config.square_px)
        return frame(
            image,
            max_side_px=config.max_side_px,
            multiple_px=backbone.multiple_px * factor,
            smallest_px=backbone.smallest_px * factor,
            fixed_px=backbone.fixed_px or square,
        )

    @torch.inference_mode()
    def __call__(self, batch: list[Any]) -> TeacherOutput:
        """Judge items of ``preprocess``; the score has no spread of its own."""
        quality = self.model(*stack(batch, self.model.backbone.mean.device))
        return TeacherOutput(quality.score.clamp(0, 1), None, {"map": quality.map, "pooled": quality.pooled})

    def fitting_module(self) -> QfmFit:
        """The model with an empty memory and the settings of its noise."""
        return QfmFit(self.model, self.settings)

    def sensitivity(self, items: Sequence[Item], scores: Sequence[float]) -> Sensitivity:
        """How far matched noise moves the scores of images that are matched with each other.

        Args:
            items: of ``preprocess``.
            scores: opinions, by which images are matched; [0, 1].
        """
        device = self.model.backbone.mean.device
        pairs = zip(items, scores, strict=True)
        batches = ((stack([item], device)[0], torch.tensor([score], device=device)) for item, score in pairs)
        return sensitivity_among(self.model, batches, self.settings)

    def gate_report(self) -> GateReport:
        """What the learned feature selection does."""
        return report_gate(self.model.decoder.gate.factors)
