"""Optimiser and learning rate: AdamW, linear warm-up, then half a cosine or steps."""

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from distill.recipe.training import OptimizerSettings
from pseudo_labels.errors import PocketiqaError

# A memory whose standard deviation is a tenth of the run so far (EDM2, section 3.1: sigma_rel = 0.10).
_GAMMA = 6.94

Model = TypeVar("Model", bound=nn.Module)


class Average:
    """The average of the tensors seen so far.

    Update t keeps the fraction min(decay, (1 - 1/t)^(gamma + 1)) of the average: at first the power function average of
    Karras et al. 2024 (EDM2, section 3.1), whose memory is always the same part of the run so far and which forgets
    the first weights, then an ordinary exponential one. A short run is therefore not dragged back by its beginning.

    Attributes:
        tensors: the average; updated in place.
        updates: number of weights averaged so far.
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float):
        self.tensors = tensors
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def take(self, present: Mapping[str, Tensor]) -> None:
        """Take in the present tensors, under the same names; what is not floating point is copied."""
        self.updates += 1
        # 1 in the first update, whatever the decay: the tensors that the average was made with leave no trace.
        fraction = 1.0 - min(self.decay, (1.0 - 1.0 / self.updates) ** (_GAMMA + 1))
        for name, average in self.tensors.items():
            if average.is_floating_point():
                average.lerp_(present[name].to(average.dtype), fraction)
            else:
                average.copy_(present[name])


class Ema(Average, Generic[Model]):
    """A second model that holds the average of the weights and running statistics seen so far.

    Attributes:
        model: the averaged model, always in evaluation mode and without gradients.
    """

    def __init__(self, model: Model, decay: float):
        self.model: Model = deepcopy(model).eval().requires_grad_(False)
        # A state dict shares its memory with the model: what is averaged in place is the model.
        super().__init__(self.model.state_dict(), decay)

    def update(self, model: nn.Module) -> None:
        """Take in the present weights of ``model``, whose state dict has the same names as at the start."""
        self.take(model.state_dict())


def learning_rate(step: int, steps: int, settings: OptimizerSettings) -> float:
    """Learning rate of optimiser step ``step`` (0-based): linear up to the peak, then by the schedule.

    Cosine: Loshchilov and Hutter 2017 (SGDR), equation 5 without restarts; the last step is just above the floor. The
    first step of a warm-up has peak / (warmup_steps + 1), so that no step is wasted at 0.

    Args:
        step: 0 to ``steps`` - 1.
        steps: length of the run.
        settings: peak, warm-up and schedule.
    """
    warmup, peak = settings.warmup_steps, settings.learning_rate
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if settings.schedule == "step":
        return peak * settings.step_factor ** sum(step >= fraction * steps for fraction in settings.step_at)
    # Below 1 even in the last step (0-based); steps are more than those of the warm-up (``LoopSettings``).
    progress = (step - warmup) / (steps - warmup)
    floor = settings.min_learning_rate_ratio
    return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress)))


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> AdamW:
    """AdamW (Loshchilov and Hutter 2019); vectors (norms, biases, scales) are not decayed.

    Each group has its factor of the learning rate as ``rate``; the loop multiplies it by ``learning_rate``.

    Raises:
        PocketiqaError: a prefix of ``learning_rate_multipliers`` fits no trained parameter.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    unused = [
        prefix for prefix in settings.learning_rate_multipliers if not any(name.startswith(prefix) for name, _ in named)
    ]
    if unused:
        known = ", ".join(sorted({name.partition(".")[0] + "." for name, _ in named}))
        raise PocketiqaError(
            f"optimizer.learning_rate_multipliers: no trained parameter begins with {unused[0]!r}; there are {known}"
        )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((_rate_of(name, settings.learning_rate_multipliers), decay), []).append(parameter)
    return AdamW(
        [{"params": members, "weight_decay": decay, "rate": rate} for (rate, decay), members in groups.items()],
        # A first value only: the loop sets the rate of each group before every step.
        lr=settings.learning_rate,
        betas=settings.betas,
    )


def _rate_of(name: str, learning_rate_multipliers: dict[str, float]) -> float:
    """The multiplier of the longest prefix that fits; 1 if none does."""
    return max(
        ((len(prefix), rate) for prefix, rate in learning_rate_multipliers.items() if name.startswith(prefix)),
        default=(0, 1.0),
    )[1]
