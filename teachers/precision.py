"""In which precision a network computes, and where autocast must not reach."""

from contextlib import AbstractContextManager, nullcontext

import torch

from pseudo_labels.errors import PocketiqaError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def check_precision(name: str) -> None:
    """Refuse what is no key of ``PRECISIONS``.

    Raises:
        PocketiqaError: names the choices.
    """
    if name not in PRECISIONS:
        raise PocketiqaError(f"precision {name!r}: choose {', '.join(PRECISIONS)}")


def full_precision(device: str) -> AbstractContextManager[object]:
    """Switches autocast off on a type of device, where it has autocast at all."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
