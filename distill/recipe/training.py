"""Settings of a training run: of every run (length, batches, optimiser, split), of a student's, of a teacher's."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from distill.recipe.settings import Settings
from distill.recipe.stages import SourceSection
from pseudo_labels.defaults import SEED, VALIDATION_FRACTION
from students.config import RegionHeadConfig
from students.preprocess import LARGEST_SIDE

ScoreKind = Literal["mse", "huber"]
MarginKind = Literal["relative", "fixed"]
Precision = Literal["no", "bf16", "fp16"]


class ScoreLossSettings(Settings):
    """Weights of the losses on scores, and their constants; a loss with weight 0 is not computed.

    Attributes:
        score: weight of the score regression.
        score_kind: kind of the score regression, ``mse`` or ``huber``.
        huber_delta: difference, in units of the score, at which Huber's loss turns from quadratic to linear.
        plcc: weight of 1 - PLCC.
        ranking: weight of the margin ranking.
        margin: margin of the ranking, see ``losses.ranking_loss``.
        margin_kind: ``relative`` to the difference of the labels, or ``fixed``; see ``losses.ranking_loss``.
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
    """Fractions of the images, whole groups (scenes) at a time; the rest trains.

    Attributes:
        validation: fraction that selects the best checkpoint, above 0.
        test: fraction that training never sees, for the evaluation.
        seed: seed of the draw.
    """

    validation: float = Field(default=VALIDATION_FRACTION, gt=0, lt=1)
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
        learning_rate: learning rate at the peak.
        learning_rate_multipliers: factor of the learning rate for parameters whose names begin so, such as
            ``{backbone.: 0.1}``.
        warmup_steps: optimiser steps of the linear rise before the peak.
        schedule: after the warm-up, half a ``cosine``, or ``step``: times ``step_factor`` at each of ``step_at``.
        min_learning_rate_ratio: learning rate at the end of the cosine, over that of the peak.
        step_factor: factor by which each step of the schedule multiplies the learning rate.
        step_at: positions of the steps, as fractions of the run.
        weight_decay: weight decay of matrices and kernels; norms and biases have none.
        betas: decay of the gradient's first and second moment.
        clip_norm: largest norm of the whole gradient; a larger one is scaled down to it.
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
    """Settings of every training run, of a student or a teacher.

    Attributes:
        seed: seed of the weights, the order of the images, crops and flips.
        steps: largest number of optimiser steps.
        batch_size: images per optimiser step, over all processes and micro-batches.
        accumulation_steps: micro-batches per optimiser step. PLCC, ranking and relational losses compare the images of
            one micro-batch (over all processes) with each other.
        mixed_precision: ``no``, ``bf16``, or ``fp16`` (GPU only).
        keep: weights that are kept in the end: the ``best`` on validation, or the ``last``.
        patience: the run ends after this many validations without a better one; None trains to the last step.
        validate_every_steps: steps between validations; the last step is always validated.
        checkpoint_every_steps: steps between checkpoints; each new best and the last step have one too.
        log_every_steps: steps between training records in the history.
        split: fractions of the images that validate and test.
        optimizer: AdamW and its schedule.
        device: ``auto`` (GPUs if there are any) or ``cpu``. A resumed run may have another.
        threads: CPU threads of each process; null measures, when the run begins, how many make it faster (at most an
            equal part of the cores) and keeps to them when it is resumed. A resumed run may be given another number;
            then the rest rounds otherwise.
        tracker: name of an Accelerate tracker, or ``none``. A resumed run may have another.
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
    """Weights of the losses of a student, and their constants; a loss with weight 0 is not computed.

    Attributes:
        feature: weight of the feature regression.
        relational: weight of the relational distance.
        feature_name: name of the teacher's feature that these two compare with.
        region_quality: weight of the regression of the quality of regions: mean of the quality map inside the mask,
            weighted by the weight map.
        region_importance: weight of the regression of the importance of regions: the fraction of the weights that lies
            inside the mask. Only of images whose regions differ in importance.
        region_ranking: weight of the margin ranking of the regions of one image, by quality and by importance.
        region_margin: largest difference that this ranking asks for, in [0, 1].
        level_ranking: weight of the order of levels of a distortion within a photograph, of sources with ``drops``.
    """

    STORED_IF_SET = frozenset(
        {"region_quality", "region_importance", "region_ranking", "region_margin", "level_ranking"}
    )

    feature: float = Field(default=0.0, ge=0)
    relational: float = Field(default=0.0, ge=0)
    feature_name: str | None = None
    region_quality: float = Field(default=0.0, ge=0)
    region_importance: float = Field(default=0.0, ge=0)
    region_ranking: float = Field(default=0.0, ge=0)
    region_margin: float = Field(default=0.2, gt=0, le=1)
    level_ranking: float = Field(default=0.0, ge=0)

    @property
    def needs_regions(self) -> bool:
        """Whether labels of regions take part."""
        return self.region_quality > 0 or self.region_importance > 0 or self.region_ranking > 0

    @property
    def needs_features(self) -> bool:
        """Whether teacher features take part."""
        return self.feature > 0 or self.relational > 0

    @property
    def total_weight(self) -> float:
        """Sum of all weights."""
        # The check of the base class asks for it: a student may learn features alone.
        regions = self.region_quality + self.region_importance + self.region_ranking
        return super().total_weight + self.feature + self.relational + regions + self.level_ranking

    @model_validator(mode="after")
    def _feature_is_named(self) -> Self:
        if self.needs_features and self.feature_name is None:
            raise ValueError("feature and relational need feature_name: the name of a feature in the label store")
        return self


class RegionHeadSettings(Settings):
    """Maps of their own for regions (``students.config.RegionHeadConfig``).

    Attributes:
        levels: strides of the feature maps that they are computed from, 1 for statistics of the pixels; null takes 1
            and 4 to 32, as far as the student's own levels go.
        map_stride: stride of the maps, in pixels of the input.
        width: channels of the fused map.
    """

    levels: tuple[int, ...] | None = None
    map_stride: int = RegionHeadConfig.map_stride
    width: int = RegionHeadConfig.width


class StudentSettings(Settings):
    """The student that is trained; null values are those of the preset or the backbone (``students.config``).

    Attributes:
        name: name of a preset, or any timm backbone.
        init: safetensors file with backbone weights under timm's names; or a whole student to go on from, head
            included: a file that ``pocketiqa export`` wrote (.onnx). In a recipe also the name of a student that comes
            with pocketiqa (``pocket-m``), or a teacher whose backbone has the student's architecture: ``embedded``, or
            the folder of a weight average.
        pretrained: take timm's weights from its hub, which needs a network.
        freeze: parts that are not trained, such as ``[backbone.conv_stem, backbone.blocks.0]``: with good first
            weights they need not be, and the first parts cost most of the time.
        max_side: longer side after the student's own resize, in pixels.
        levels: strides of the feature maps that are used.
        map_stride: stride of the quality map, in pixels of the input.
        head_width: channels of the fused map.
        mean: mean of RGB in [0, 1] that is subtracted.
        std: standard deviation of RGB in [0, 1] that divides.
        pad_type: "same" padding for weights that come from TensorFlow.
        last_stage: the backbone's last stage that is kept, such as ``blocks.5``, where several have the last stride.
        regions: maps of their own for regions, beside those of the score; ``{}`` has the usual ones, null has none.
            With ``freeze: [backbone, neck, heads]`` they alone are trained, and no score changes.
    """

    RENAMED = {"grid": "map_stride"}
    STORED_IF_SET = frozenset({"regions", "last_stage"})

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
    last_stage: str | None = None
    regions: RegionHeadSettings | None = None


class ImageSettings(Settings):
    """Crops and flips of the images that a student is trained on, after its own resize.

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
    """A teacher that scores the student's own random crops while it learns.

    A score counts by its confidence itself, at most 1, while stored labels count 1 on average: of a teacher that gives
    spreads, the losses of score and feature are smaller in proportion, against those that compare images.

    Attributes:
        teacher: registry name, folder of a fitted teacher, or ``package.module:function``; one that needs no reference.
            In a recipe, null is the teacher of its section ``label``, with its options.
        options: options of the teacher.
    """

    teacher: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class TrainConfig(LoopSettings):
    """One training run of a student.

    Attributes:
        live: a teacher whose scores (and features) of each random crop are learned in place of the labels, which then
            choose the images and the best checkpoint only. None learns the labels of whole images.
        freeze_batch_norm: whether batch normalisation keeps its running statistics.
        ema_decay: largest decay of the averaged weights, per step (``optim.Ema``); these are validated and kept.
        student: the student and its first weights.
        losses: weights of the losses.
        images: crops and flips.
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

    @model_validator(mode="after")
    def _regions_are_of_the_stored_labels(self) -> Self:
        if self.losses.region_importance > 0 and self.images.crop_size is not None:
            raise ValueError(
                "the importance of a region is for the whole image: with losses.region_importance set images.crop_size "
                "to null"
            )
        return self

    @model_validator(mode="after")
    def _region_maps_learn(self) -> Self:
        if self.student.regions is not None and not self.losses.needs_regions:
            raise ValueError(
                "student.regions has maps that no loss trains: give losses.region_quality, region_importance or "
                "region_ranking a weight"
            )
        return self

    def determining(self) -> dict[str, object]:
        """The settings that determine the result, as JSON values: a resumed run must repeat them.

        The paths of the student's first weights and of a live teacher are no part of it; the digest of the former and
        the stamp of the latter must be added.
        """
        # "threads" changes the order of sums, so the last bits, but not what is learned: another machine may go on.
        elsewhere = {"student": {"init"}, "live": {"options"}}
        return self.stored(exclude={"device": True, "threads": True, "tracker": True, **elsewhere})


class ViewSettings(Settings):
    """Crops and flips of the images that a teacher is fitted to, before its own resize. Validation is on whole images.

    Attributes:
        max_side: longer side in pixels to which larger images are shrunk once, before all else. If it is below the size
            of the images, label images that were shrunk in the same way.
        crop_fraction: height and width of a random crop over those of the image; 1 is the whole image.
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
            raise ValueError(
                f"crop_size {self.crop_size} and crop_fraction {self.crop_fraction}: give only one of them"
            )
        return self

    def crop_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the crop of an image."""
        if self.crop_size is not None:
            return min(height, self.crop_size), min(width, self.crop_size)
        return max(1, round(height * self.crop_fraction)), max(1, round(width * self.crop_fraction))


class FitConfig(LoopSettings):
    """One fitting of a teacher.

    Attributes:
        teacher: registry name, or ``package.module:function``.
        options: options of the teacher; ``head: new`` starts at random, ``head: FILE`` continues an earlier one. When
            a run is resumed, files may have moved, and options that change time and memory alone
            (``TeacherEntry.speed``) may differ.
        ema_decay: largest decay of averaged weights, per step (``optim.Average``); these are validated and kept. 0, as
            in the papers, averages nothing and costs no memory.
        losses: weights of the losses.
        images: crops and flips.
        judgements: of a teacher of regions: whether it also learns to say yes or no to statements on quality and type,
            two each, as in the paper. A small model learns the levels sooner without.
        scale: meaning of 0 and 1, written into the fitted file; null names the sources.
        licence: licence of weights and ratings, written into the fitted file; null names the sources.
    """

    STORED_IF_SET = frozenset({"judgements"})

    teacher: str
    options: dict[str, Any] = Field(default_factory=dict)
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    losses: ScoreLossSettings = ScoreLossSettings()
    images: ViewSettings = ViewSettings()
    judgements: bool = True
    scale: str | None = None
    licence: str | None = None

    def determining(self) -> dict[str, object]:
        """The settings that determine the result, as JSON values.

        The teacher's options and the sources name files of this machine; the stamp of the teacher that the options give
        and what the sources hold must be added.
        """
        return self.stored(exclude={"device", "threads", "tracker", "options", "sources", "exports"})


class FitSection(FitConfig):
    """The section ``fit`` of a recipe.

    Attributes:
        sources: ratings to fit to: ``ratings: NAME:FOLDER``, or a pool with its labels. ``seagull`` also learns from
            regions: ``pool``, ``regions`` and ``region_labels``; without any source, from those of the section
            ``regions`` of the recipe, which are then made before the fitting.
        exports: further forms of a fitted ``seagull``, in the folder ``fit-export``: ``adapters``, as peft reads them,
            with extractor and projector beside them; ``merged``, the whole model in the layout of the published
            checkpoint (14 GB in its size), for the option ``weights`` of the teacher.
    """

    sources: tuple[SourceSection, ...] = ()
    exports: tuple[Literal["adapters", "merged"], ...] = ()

    @field_validator("sources")
    @classmethod
    def _scores_are_learned(cls, sources: tuple[SourceSection, ...]) -> tuple[SourceSection, ...]:
        if any(source.drops is not None for source in sources):
            raise ValueError("a teacher learns scores, not the order of levels: leave out the source with 'drops'")
        return sources

    @property
    def of_regions(self) -> bool:
        """Whether the teacher learns from regions, those of the sources or of the recipe."""
        return all(section.labels is None and section.regions is not None for section in self.sources)

    @property
    def of_own_regions(self) -> bool:
        """Whether the teacher learns from the regions that the recipe itself makes and labels."""
        return not self.sources
