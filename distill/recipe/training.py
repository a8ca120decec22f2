"""Settings that every training run has, whether a student or a teacher learns: length, batches, optimiser, split."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from distill.recipe.settings import Settings
from distill.recipe.stages import SourceSection
from pseudo_labels.defaults import SEED
from students.preprocess import LARGEST_SIDE

ScoreKind = Literal["mse", "huber"]
MarginKind = Literal["relative", "fixed"]
Precision = Literal["no", "bf16", "fp16"]


class ScoreLossSettings(Settings):
    """How much of each loss on scores, and their constants; a loss with weight 0 is not computed.

    Attributes:
        score: weight of the score regression.
        score_kind: ``mse`` or ``huber``.
        huber_delta: where Huber turns from quadratic to linear, in units of the score.
        plcc: weight of 1 - PLCC.
        ranking: weight of the margin ranking.
        margin: see ``losses.ranking_loss``.
        margin_kind: see ``losses.ranking_loss``.
    """

    score: float = Field(default=1.0, ge=0)
    score_kind: ScoreKind = "huber"
    huber_delta: float = Field(default=0.1, gt=0)
    plcc: float = Field(default=0.5, ge=0)
    ranking: float = Field(default=0.0, ge=0)
    margin: float = Field(default=0.5, gt=0)
    margin_kind: MarginKind = "relative"

    @property
    def total_weight(self) -> float:
        """Sum of all weights."""
        return self.score + self.plcc + self.ranking

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if not self.total_weight:
            raise ValueError("every loss has weight 0: give at least one of score, plcc, ranking a weight")
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
    seed: int = SEED

    @model_validator(mode="after")
    def _something_trains(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} + test {self.test} leave nothing to train on: lower them")
        return self


class OptimizerSettings(Settings):
    """AdamW (Adam, with ``weight_decay: 0``) and its schedule.

    Attributes:
        learning_rate: at the peak.
        learning_rate_multipliers: factor of the learning rate for parameters whose names begin so, such as
            ``{backbone.: 0.1}``.
        warmup_steps: linear rise before the peak, in optimiser steps.
        schedule: after the warm-up, half a ``cosine``, or ``step``: times ``step_factor`` at each of ``step_at``.
        min_learning_rate_ratio: share of the peak that remains at the end of the cosine.
        step_factor: by which each step of the schedule multiplies the rate.
        step_at: where the steps are, as shares of the run.
        weight_decay: of matrices and kernels; norms and biases have none.
        betas: decay of the gradient's first and second moment.
        clip_norm: largest norm of the whole gradient.
    """

    RENAMED = {"rates": "learning_rate_multipliers", "final_share": "min_learning_rate_ratio"}

    learning_rate: float = Field(default=1e-3, gt=0)
    learning_rate_multipliers: dict[str, float] = {}
    warmup_steps: int = Field(default=20, ge=0)
    schedule: Literal["cosine", "step"] = "cosine"
    min_learning_rate_ratio: float = Field(default=0.0, ge=0, le=1)
    step_factor: float = Field(default=0.2, gt=0, le=1)
    step_at: tuple[float, ...] = (0.5, 0.75)
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = Field(default=1.0, gt=0)


class LoopSettings(Settings):
    """One training run, whatever learns.

    Attributes:
        seed: of the weights, the order of the images, crops and flips.
        steps: optimiser steps, at most.
        batch_size: images per optimiser step, over all processes and micro-batches.
        accumulation_steps: micro-batches per optimiser step. PLCC, ranking and relational losses compare the images of
            one micro-batch (over all processes) with each other.
        mixed_precision: ``no``, ``bf16``, or ``fp16`` (GPU only).
        keep: which weights are kept in the end: ``best`` on validation, or ``last``.
        patience: the run ends after this many validations without a better one; None trains to the last step.
        validate_every_steps: distance of validations; the last step is always validated.
        checkpoint_every_steps: distance of checkpoints; each new best and the last step have one too.
        log_every_steps: distance of training records in the history.
        split: see ``SplitSettings``.
        optimizer: see ``OptimizerSettings``.
        device: ``auto`` (GPUs if there are) or ``cpu``. Not compared when a run is resumed.
        threads: CPU threads of each process; None for an equal share of the cores. Not compared either.
        tracker: name of an Accelerate tracker, or ``none``. Not compared either.
    """

    seed: int = Field(default=SEED, ge=0)
    steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=32, ge=1)
    accumulation_steps: int = Field(default=1, ge=1)
    mixed_precision: Precision = "no"
    keep: Literal["best", "last"] = "best"
    patience: int | None = Field(default=None, ge=1)
    validate_every_steps: int = Field(default=100, ge=1)
    checkpoint_every_steps: int = Field(default=100, ge=1)
    log_every_steps: int = Field(default=10, ge=1)
    split: SplitSettings = SplitSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    device: Literal["auto", "cpu"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    tracker: str = "tensorboard"

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _no_is_a_word(cls, value: object) -> object:
        # To YAML, a bare no is false.
        return "no" if value is False else value

    @model_validator(mode="after")
    def _consistent_loop(self) -> Self:
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
        return self


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
            the student's architecture: ``embedded``, or the folder of a weight average.
        pretrained: take timm's weights from its hub, which needs a network.
        freeze: parts that stay as they start, such as ``[backbone.conv_stem, backbone.blocks.0]``: what comes with good
            first weights need not be learned, and the first parts cost most of the time.
        max_side: longer side after the student's own resize, in pixels.
        levels: strides of the feature maps used.
        map_stride: stride of the quality map, in pixels of the input.
        head_width: channels of the fused map.
        mean: of RGB in [0, 1].
        std: of RGB in [0, 1].
        pad_type: "same" for weights that come from TensorFlow.
    """

    RENAMED = {"grid": "map_stride"}

    name: str = "pocket-m"
    init: Path | None = None
    pretrained: bool = False
    freeze: tuple[str, ...] = ()
    max_side: int | None = Field(default=None, ge=64)
    levels: tuple[int, ...] | None = None
    map_stride: int | None = None
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

    # Without effect, but in the specification of every run of earlier versions: these still resume.
    STORED_ALSO = {"max_side": 384}
    REMOVED = {"max_side": "it resized nothing; student.max_side is the size that a student sees"}

    crop_size: int | None = Field(default=224, ge=64)
    horizontal_flip: bool = True


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
        return self.stored(exclude={"device": True, "threads": True, "tracker": True, **elsewhere})


class ViewSettings(Settings):
    """What the teacher sees of an image in training; its own resize comes after. Validation shows the whole image.

    Attributes:
        max_side: larger images are shrunk to this longer side in pixels once, before all else. Where that is below the
            size of the images, label images that were shrunk alike.
        crop_fraction: share of each side that a random crop has; 1 shows the whole image.
        crop_size: side of a random square crop in pixels instead.
        horizontal_flip: flip half of the images.
    """

    RENAMED = {"crop_share": "crop_fraction"}

    max_side: int = Field(default=1024, ge=64, le=LARGEST_SIDE)
    crop_fraction: float = Field(default=1.0, gt=0, le=1)
    crop_size: int | None = Field(default=None, ge=64)
    horizontal_flip: bool = True

    @model_validator(mode="after")
    def _one_kind_of_crop(self) -> Self:
        if self.crop_size is not None and self.crop_fraction < 1:
            raise ValueError(f"crop_size {self.crop_size} and crop_share {self.crop_fraction}: give only one of them")
        return self

    def window(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the crop of an image."""
        if self.crop_size is not None:
            return min(height, self.crop_size), min(width, self.crop_size)
        return max(1, round(height * self.crop_fraction)), max(1, round(width * self.crop_fraction))


class FitConfig(LoopSettings):
    """One fitting of a teacher.

    Attributes:
        teacher: registry name, or ``package.module:function``.
        options: of the teacher; ``head: new`` starts at random, ``head: FILE`` goes on from an earlier fitting. When a
            run is resumed, files may have moved, and what changes time and memory alone (``TeacherEntry.speed``) may
            differ.
        ema_decay: largest decay of averaged weights, per step (``ema.Average``); these are validated and kept. 0, as in
            the papers, averages nothing and costs no memory.
        losses: see ``ScoreLossSettings``.
        images: see ``ViewSettings``.
        scale: what 0 and 1 mean, for the file; None names the sources.
        licence: of weights and opinions, likewise.
    """

    teacher: str
    options: dict[str, Any] = Field(default_factory=dict)
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    losses: ScoreLossSettings = ScoreLossSettings()
    images: ViewSettings = ViewSettings()
    scale: str | None = None
    licence: str | None = None

    def determining(self) -> dict[str, object]:
        """The settings that determine the result, as JSON values.

        The teacher's options and the sources name files of this machine; the stamp of the teacher that the options give
        and what the sources hold must be added.
        """
        return self.stored(exclude={"device", "threads", "tracker", "options", "sources"})


class FitSection(FitConfig):
    """The section ``fit`` of a recipe.

    Attributes:
        sources: opinions to fit to: ``ratings: NAME:FOLDER``, or a pool with its labels.
    """

    sources: tuple[SourceSection, ...] = Field(min_length=1)
