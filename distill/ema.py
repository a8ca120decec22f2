"""Exponential moving average of a model's weights, that soon forgets the first ones."""

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import nn

# A memory whose standard deviation is a tenth of the run so far (EDM2, section 3.1: sigma_rel = 0.10).
_GAMMA = 6.94

Model = TypeVar("Model", bound=nn.Module)


class Ema(Generic[Model]):
    """A second model that holds the average of the weights seen so far.

    Update t keeps the share min(decay, (1 - 1/t)^(gamma + 1)) of the average: at first the power function average of
    Karras et al. 2024 (EDM2, section 3.1), whose memory is always the same part of the run so far and which forgets
    the first weights, then an ordinary exponential one. A short run is therefore not dragged back by its beginning.
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
        share = 1.0 - min(self.decay, (1.0 - 1.0 / self.updates) ** (_GAMMA + 1))
        present = model.state_dict()
        for name, average in self.model.state_dict().items():
            if average.is_floating_point():
                average.lerp_(present[name].to(average.dtype), share)
            else:
                average.copy_(present[name])
