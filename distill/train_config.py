"""The training part of a recipe: pydantic models that refuse unknown keys and impossible combinations."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ScoreKind = Literal["mse", "huber"]
MarginKind = Literal["relative", "fixed"]
Precision = Literal["no", "bf16", "fp16"]


class Settings(BaseModel):
    """Frozen settings; a key that is not listed is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LossSettings(Settings):
    """How much of each loss, and their constants; a loss with weight 0 is not computed.

    Attributes:
        score: weight of the score regression.
        score_kind: ``mse`` or ``huber``.
        huber_delta: where Huber turns from quadratic to linear, in units of the score.
        plcc: weight of 1 - PLCC.
        ranking: weight of the margin ranking.
        margin: see ``losses.ranking_loss``.
        margin_kind: see ``losses.ranking_loss``.
        feature: weight of the feature regression.
        relational: weight of the relational distance.
        feature_name: which cached teacher feature the last two compare with.
    """

    score: float = Field(default=1.0, ge=0)
    score_kind: ScoreKind = "huber"
    huber_delta: float = Field(default=0.1, gt=0)
    plcc: float = Field(default=0.5, ge=0)
    ranking: float = Field(default=0.0, ge=0)
    margin: float = Field(default=0.5, gt=0)
    margin_kind: MarginKind = "relative"
    feature: float = Field(default=0.0, ge=0)
    relational: float = Field(default=0.0, ge=0)
    feature_name: str | None = None

    @property
    def needs_features(self) -> bool:
        """Whether cached teacher features take part."""
        return self.feature > 0 or self.relational > 0

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if not self.score + self.plcc + self.ranking + self.feature + self.relational:
            raise ValueError("every loss has weight 0: give at least one of score, plcc, ranking a weight")
        if self.needs_features and self.feature_name is None:
            raise ValueError("feature and relational need feature_name: the name of a feature in the label store")
        return self


class StudentSettings(Settings):
    """Which student is trained; what is None is as the preset, or the backbone, has it (``students.config``).

    Attributes:
        name: preset, or any timm backbone.
        init: safetensors file with backbone weights under timm's names.
        pretrained: take timm's weights from its hub, which needs a network.
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
        horizontal_flip: flip half of the images; sources whose labels hold flipped views use those instead.
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


class SplitSettings(Settings):
    """Shares of the images, whole groups at a time; the rest trains.

    Attributes:
        validation: share that selects the best checkpoint, above 0.
        test: share that training never sees, for the evaluation.
        seed: of the draw.
    """

    validation: float = Field(default=0.15, gt=0, lt=1)
    test: float = Field(default=0.0, ge=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _something_trains(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} + test {self.test} leave nothing to train on: lower them")
        return self


class OptimizerSettings(Settings):
    """AdamW and its schedule.

    Attributes:
        learning_rate: at the peak.
        warmup_steps: linear rise before the peak, in optimiser steps.
        final_share: share of the peak that remains at the end of the cosine.
        weight_decay: of matrices and kernels; norms and biases have none.
        betas: decay of the gradient's first and second moment.
        clip_norm: largest norm of the whole gradient.
    """

    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_steps: int = Field(default=20, ge=0)
    final_share: float = Field(default=0.0, ge=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = Field(default=1.0, gt=0)


class TrainConfig(Settings):
    """One training run.

    Attributes:
        seed: of the weights, the order of the images, crops and flips.
        steps: optimiser steps.
        batch_size: images per optimiser step, over all processes and micro-batches.
        accumulation_steps: micro-batches per optimiser step. PLCC, ranking and relational losses compare the images of
            one micro-batch (over all processes) with each other.
        mixed_precision: ``no``, ``bf16``, or ``fp16`` (GPU only).
        freeze_batch_norm: keep batch normalisation at its running statistics.
        ema_decay: largest decay of the averaged weights, per step (``ema.Ema``); these are validated and kept.
        keep: which weights become the student: ``best`` on validation, or ``last``.
        validate_every_steps: distance of validations; the last step is always validated.
        checkpoint_every_steps: distance of checkpoints; each new best and the last step have one too.
        log_every_steps: distance of training records in the history.
        student: see ``StudentSettings``.
        losses: see ``LossSettings``.
        images: see ``ImageSettings``.
        split: see ``SplitSettings``.
        optimizer: see ``OptimizerSettings``.
        device: ``auto`` (GPUs if there are) or ``cpu``. Not compared when a run is resumed.
        threads: CPU threads of each process; None for an equal share of the cores. Not compared either.
        tracker: name of an Accelerate tracker, or ``none``. Not compared either.
    """

    seed: int = Field(default=0, ge=0)
    steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=32, ge=1)
    accumulation_steps: int = Field(default=1, ge=1)
    mixed_precision: Precision = "no"
    freeze_batch_norm: bool = False
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    keep: Literal["best", "last"] = "best"
    validate_every_steps: int = Field(default=100, ge=1)
    checkpoint_every_steps: int = Field(default=100, ge=1)
    log_every_steps: int = Field(default=10, ge=1)
    student: StudentSettings = StudentSettings()
    losses: LossSettings = LossSettings()
    images: ImageSettings = ImageSettings()
    split: SplitSettings = SplitSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    device: Literal["auto", "cpu"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    tracker: str = "tensorboard"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batch_size % self.accumulation_steps:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into accumulation_steps {self.accumulation_steps} "
                "equal micro-batches: choose a multiple"
            )
        if self.optimizer.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps {self.optimizer.warmup_steps} must be fewer than steps {self.steps}: "
                "lower optimizer.warmup_steps"
            )
        if self.losses.needs_features and (self.images.crop_size is not None or self.images.horizontal_flip):
            raise ValueError(
                "cached teacher features show the whole unflipped image: with losses.feature or losses.relational "
                "set images.crop_size to null and images.horizontal_flip to false"
            )
        return self

    def determining(self) -> dict[str, object]:
        """The settings that determine the result, as JSON values: what a resumed run must repeat.

        Where the student's first weights lie is not part of it; their digest must be added.
        """
        return self.model_dump(
            mode="json", exclude={"device": True, "threads": True, "tracker": True, "student": {"init"}}
        )
