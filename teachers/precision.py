"""Where autocast must not reach."""

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: str) -> AbstractContextManager[object]:
    """Switches autocast off on a type of device, where it has autocast at all."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
