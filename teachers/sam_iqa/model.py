"""The whole model, in its no-reference and its full-reference form."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from teachers.fitting import evaluate_frozen
from teachers.precision import full_precision
from teachers.sam_iqa.branches import SpatialFrequency
from teachers.sam_iqa.encoder import SamEncoder
from teachers.sam_iqa.regression import Quality, RegressionBlock
from teachers.sam_iqa.variants import TAPS, SamVariant, variant_named

# What stays trainable -> prefixes of parameter names. The head always is.
TRAINABLE: dict[str, tuple[str, ...]] = {
    "head": ("branches.", "regression."),
    "neck": ("branches.", "regression.", "encoder.vit.neck."),
    "all": ("branches.", "regression.", "encoder."),
}
FORMS = ("nr", "fr")


@dataclass(frozen=True)
class SamIqaConfig:
    """What a fitted model must share with the one that it is loaded into.

    Attributes:
        variant: key of ``VARIANTS``.
        form: ``nr`` judges an image alone, ``fr`` against its reference.
        input_side_px: side of the square that images are resized to; 0 means the encoder's native size.
        trainable: ``head``, ``neck`` (SAM's neck too) or ``all`` (the whole encoder too).

    Raises:
        PocketiqaError: an unknown name, or a size that the encoder cannot take.
    """

    variant: str = "vit_b"
    form: str = "nr"
    input_side_px: int = 0
    trainable: str = "head"

    def __post_init__(self) -> None:
        sizes = variant_named(self.variant)
        for name, value, known in (("form", self.form, FORMS), ("trainable", self.trainable, TRAINABLE)):
            if value not in known:
                raise PocketiqaError(f"{name} {value!r}: choose {', '.join(known)}")
        if self.input_side_px == 0:
            object.__setattr__(self, "input_side_px", sizes.native_side_px)
        sizes.check_side(self.input_side_px)

    @property
    def sizes(self) -> SamVariant:
        """The numbers of the variant."""
        return variant_named(self.variant)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


class SamIqa(nn.Module):
    """Encoder, spatial-and-frequency module and regression block.

    Under autocast only the encoder is in lower precision: the rest costs little, and a score in bfloat16 would know no
    more than 256 steps.

    Args:
        config: decides the sizes, the form and what is trainable.
        vit: of ``config.variant``, weights loaded, at its native size.
    """

    def __init__(self, config: SamIqaConfig, vit: ImageEncoderViT):
        super().__init__()
        sizes = config.sizes
        self.config = config
        self.encoder = SamEncoder(vit, sizes, config.input_side_px)
        self.branches = SpatialFrequency(TAPS, sizes.embed_dim, sizes.neck_width)
        self.regression = RegressionBlock(2 * TAPS * sizes.neck_width, sizes.neck_width)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(TRAINABLE[config.trainable]))

    def features(self, rgb: Tensor) -> Tensor:
        """uint8 [B, 3, side, side] to the spatial and frequency features [B, 6 * neck_width, grid, grid]."""
        taps, neck = self.encoder(rgb)
        with full_precision(rgb.device.type):
            return self.branches(taps, neck)

    def forward(self, rgb: Tensor, reference: Tensor | None = None) -> Quality:
        """Judge images.

        Args:
            rgb: uint8 [B, 3, side, side].
            reference: the clean images, of the same shape; for the full-reference form, and only for it.
        """
        if (reference is not None) != (self.config.form == "fr"):
            raise ValueError(f"form {self.config.form!r} with{'out' if reference is None else ''} reference images")
        if reference is None:
            features = self.features(rgb)
        else:
            # One pass over both, so that the weights are read once.
            distorted, clean = self.features(torch.cat((rgb, reference))).chunk(2)
            features = (distorted - clean).abs()
        with full_precision(rgb.device.type):
            return self.regression(features)

    def train(self, mode: bool = True) -> "SamIqa":
        """As of any module, but what is frozen stays in evaluation mode."""
        super().train(mode)
        evaluate_frozen(self)
        return self
