"""Optimiser and learning rate: AdamW, linear warm-up, cosine decay."""

import math

from torch import nn
from torch.optim import AdamW


def learning_rate(step: int, *, peak: float, steps: int, warmup_steps: int, floor: float = 0.0) -> float:
    """Learning rate of optimiser step ``step`` (0-based): linear up to ``peak``, then half a cosine down.

    Loshchilov and Hutter 2017 (SGDR), equation 5 without restarts. The first step has peak / (warmup_steps + 1), so
    that no step is wasted at 0; the last one is just above ``peak * floor``.

    Args:
        step: 0 to ``steps`` - 1.
        peak: the highest rate.
        steps: length of the run.
        warmup_steps: steps before the peak, fewer than ``steps``.
        floor: share of the peak that remains at the end, in [0, 1].
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / (steps - warmup_steps)
    return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress)))


def build_optimizer(model: nn.Module, *, peak: float, weight_decay: float, betas: tuple[float, float]) -> AdamW:
    """AdamW (Loshchilov and Hutter 2019); vectors (norms, biases, scales) are not decayed."""
    decayed = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim > 1]
    free = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return AdamW([group for group in groups if group["params"]], lr=peak, betas=betas)
