"""Exponential moving average of a model's weights, free of the first weights' bias."""

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


class Ema(Generic[Model]):
    """A second model that holds the average of the weights seen so far.

    After t updates the average is sum_i d^(t-i) (1-d) w_i / (1 - d^t): Adam's bias correction (Kingma and Ba 2015,
    section 3) written as a running update, so that the random or pretrained start does not linger in a short run.
    Buffers that are floating point (running statistics) are averaged too; counters are copied.

    Attributes:
        model: the averaged model, always in evaluation mode and without gradients.
        updates: number of weights averaged so far.
    """

    def __init__(self, model: Model, decay: float):
        self.model: Model = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the present weights of ``model``, whose state dict has the same names as at the start."""
        self.updates += 1
        share = (1.0 - self.decay) / (1.0 - self.decay**self.updates)
        present = model.state_dict()
        for name, average in self.model.state_dict().items():
            if average.is_floating_point():
                average.lerp_(present[name].to(average.dtype), share)
            else:
                average.copy_(present[name])
