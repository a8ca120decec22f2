"""Backbone weights from a local file under timm's key names."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from teachers.misfits import misfits


def load_local(model: nn.Module, path: Path) -> None:
    """Take over a safetensors file with timm's key names; its classifier is ignored.

    Raises:
        PocketiqaError: not there, not safetensors, or not of this model.
    """
    if not path.is_file():
        raise PocketiqaError(
            f"no backbone weights at {path}: give weights=FILE, a safetensors file in timm's key names"
        )
    try:
        given = load_file(path)
    except (SafetensorError, OSError) as error:
        raise PocketiqaError(f"the backbone weights at {path} are not a safetensors file ({error})") from error
    own = model.state_dict()
    # Files without batch normalisation's counter are common, and only training with momentum None reads it.
    needed = {name: value for name, value in own.items() if not name.endswith("num_batches_tracked")}
    faults = misfits(needed, {name: value for name, value in given.items() if name in needed})
    if faults:
        raise PocketiqaError(f"{path} was made for another backbone ({faults}): give the file of this one")
    _copy(own, given)


@torch.no_grad()
def _copy(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    for name, value in own.items():
        if name in given:
            value.copy_(given[name])
