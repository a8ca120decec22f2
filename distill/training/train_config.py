"""The training part of a student's recipe: pydantic models that refuse unknown keys and impossible combinations."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from distill.training.loop_config import LoopSettings, ScoreLossSettings, Settings


class LossSettings(ScoreLossSettings):
    """How much of each loss of a student, and their constants; a loss with weight 0 is not computed.

    Attributes:
        feature: weight of the feature regression.
        relational: weight of the relational distance.
        feature_name: which teacher feature these two compare with.
    """

    feature: float = Field(default=0.0, ge=0)
    relational: float = Field(default=0.0, ge=0)
    feature_name: str | None = None

    @property
    def needs_features(self) -> bool:
        """Whether teacher features take part."""
        return self.feature > 0 or self.relational > 0

    @property
    def total_weight(self) -> float:
        """Sum of all weights."""
        return super().total_weight + self.feature + self.relational

    @model_validator(mode="after")
    def _feature_is_named(self) -> Self:
        if self.needs_features and self.feature_name is None:
            raise ValueError("feature and relational need feature_name: the name of a feature in the label store")
        return self


class StudentSettings(Settings):
    """Which student is trained; what is None is as the preset, or the backbone, has it (``students.config``).

    Attributes:
        name: preset, or any timm backbone.
        init: safetensors file with backbone weights under timm's names; in a recipe also a teacher whose backbone has
            the student's architecture: ``embedded``, or the folder of a merged one.
        pretrained: take timm's weights from its hub, which needs a network.
        freeze: parts that stay as they start, such as ``[backbone.conv_stem, backbone.blocks.0]``: what comes with good
            first weights need not be learned, and the first parts cost most of the time.
        max_side: longer side after the student's own resize, in pixels.
        levels: strides of the feature maps used.
        grid: stride of the quality map.
        head_width: channels of the fused map.
        mean: of RGB in [0, 1].
        std: of RGB in [0, 1].
        pad_type: "same" for weights that come from TensorFlow.
    """

    name: str = "pocket-m"
    init: Path | None = None
    pretrained: bool = False
    freeze: tuple[str, ...] = ()
    max_side: int | None = Field(default=None, ge=64)
    levels: tuple[int, ...] | None = None
    grid: int | None = None
    head_width: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    pad_type: str | None = None


class ImageSettings(Settings):
    """What the student sees of an image after its own resize.

    Attributes:
        crop_size: side of a random square crop in pixels; None for whole images, padded to one size.
        horizontal_flip: flip half of the images, and the maps that a teacher gave of them as features; sources whose
            labels hold flipped views use those instead.
    """

    max_side: int = Field(default=384, ge=64)
    crop_size: int | None = Field(default=224, ge=64)
    horizontal_flip: bool = True

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.crop_size is not None and self.crop_size > self.max_side:
            raise ValueError(
                f"crop_size {self.crop_size} is above max_side {self.max_side}: lower it or raise max_side"
            )
        return self


class LiveSettings(Settings):
    """A teacher that judges the student's own views while it learns.

    Attributes:
        teacher: registry name, folder of a fitted teacher, or ``package.module:function``; one that needs no reference.
            In a recipe, null is the teacher of its section ``label``, with its options.
        options: of the teacher.
    """

    teacher: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class TrainConfig(LoopSettings):
    """One training run of a student.

    Attributes:
        live: a teacher whose scores (and features) of each random crop are learned in place of the labels, which then
            choose the images and the best checkpoint only. None learns the labels of whole images.
        freeze_batch_norm: keep batch normalisation at its running statistics.
        ema_decay: largest decay of the averaged weights, per step (``ema.Ema``); these are validated and kept.
        student: see ``StudentSettings``.
        losses: see ``LossSettings``.
        images: see ``ImageSettings``.
    """

    freeze_batch_norm: bool = False
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    student: StudentSettings = StudentSettings()
    losses: LossSettings = LossSettings()
    images: ImageSettings = ImageSettings()
    live: LiveSettings | None = None

    @model_validator(mode="after")
    def _features_show_what_the_student_sees(self) -> Self:
        if self.losses.needs_features and self.images.crop_size is not None and self.live is None:
            raise ValueError(
                "cached teacher features show the whole image: with losses.feature or losses.relational set "
                "images.crop_size to null, or name a live teacher"
            )
        return self

    def determining(self) -> dict[str, object]:
        """The settings that determine the result, as JSON values: what a resumed run must repeat.

        Where the student's first weights and those of a live teacher lie is not part of it; the digest of the former
        and the stamp of the latter must be added.
        """
        elsewhere = {"student": {"init"}, "live": {"options"}}
        return self.model_dump(mode="json", exclude={"device": True, "threads": True, "tracker": True, **elsewhere})
