"""Settings that every training run has, whether a student or a teacher learns: length, batches, optimiser, split."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

ScoreKind = Literal["mse", "huber"]
MarginKind = Literal["relative", "fixed"]
Precision = Literal["no", "bf16", "fp16"]


class Settings(BaseModel):
    """Frozen settings; a key that is not listed is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
    seed: int = 0

    @model_validator(mode="after")
    def _something_trains(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} + test {self.test} leave nothing to train on: lower them")
        return self


class OptimizerSettings(Settings):
    """AdamW (Adam, with ``weight_decay: 0``) and its schedule.

    Attributes:
        learning_rate: at the peak.
        rates: share of the learning rate for parameters whose names begin so, such as ``{backbone.: 0.1}``.
        warmup_steps: linear rise before the peak, in optimiser steps.
        schedule: after the warm-up, half a ``cosine``, or ``step``: times ``step_factor`` at each of ``step_at``.
        final_share: share of the peak that remains at the end of the cosine.
        step_factor: by which each step of the schedule multiplies the rate.
        step_at: where the steps are, as shares of the run.
        weight_decay: of matrices and kernels; norms and biases have none.
        betas: decay of the gradient's first and second moment.
        clip_norm: largest norm of the whole gradient.
    """

    learning_rate: float = Field(default=1e-3, gt=0)
    rates: dict[str, float] = {}
    warmup_steps: int = Field(default=20, ge=0)
    schedule: Literal["cosine", "step"] = "cosine"
    final_share: float = Field(default=0.0, ge=0, le=1)
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

    seed: int = Field(default=0, ge=0)
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
