"""Exponential moving average of a model's weights, that soon forgets the first ones."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

# A memory whose standard deviation is a tenth of the run so far (EDM2, section 3.1: sigma_rel = 0.10).
_GAMMA = 6.94

Model = TypeVar("Model", bound=nn.Module)


class Average:
    """The average of the tensors seen so far.

    Update t keeps the share min(decay, (1 - 1/t)^(gamma + 1)) of the average: at first the power function average of
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
        share = 1.0 - min(self.decay, (1.0 - 1.0 / self.updates) ** (_GAMMA + 1))
        for name, average in self.tensors.items():
            if average.is_floating_point():
                average.lerp_(present[name].to(average.dtype), share)
            else:
                average.copy_(present[name])


class Ema(Average, Generic[Model]):
    """A second model that holds the average of the weights and running statistics seen so far.

    Attributes:
        model: the averaged model, always in evaluation mode and without gradients.
    """

    def __init__(self, model: Model, decay: float):
        self.model: Model = deepcopy(model).eval().requires_grad_(False)
        super().__init__(self.model.state_dict(), decay)

    def update(self, model: nn.Module) -> None:
        """Take in the present weights of ``model``, whose state dict has the same names as at the start."""
        self.take(model.state_dict())
