"""What a frozen backbone says of images, kept in a folder: each image passes the backbone once, whoever asks.

Fitting shows the same images many times, a study fits many heads on one backbone, and the fitted teachers label and
judge the same images again. Of all that, only the backbone's pass costs much.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from pseudo_labels.files import digest_of, write_atomic

_NAME = "summary"
_DIGITS = 16  # of a digest, in the name of a folder


class KeptSummaries:
    """One file an image, named by the digest of its pixels.

    Images that are not there yet pass the backbone one by one, so that a summary does not depend on the batch in which
    it was asked for first. Any number of processes may use one folder.

    Args:
        folder: made when something is kept.
        made_by: what a summary depends on beside pixels, device and threads: the backbone's digest and settings, as
            JSON values. Others have a subfolder of their own.
    """

    def __init__(self, folder: Path, made_by: dict[str, Any]):
        self.folder, self._made_by = folder, made_by

    def of(self, rgb: Tensor, summarise: Callable[[Tensor], Tensor]) -> Tensor:
        """Summaries [B, D] of images [B, 3, H, W], on their device.

        Raises:
            StorageFullError: the disk is full.
        """
        home = self._home(rgb.device.type)
        return torch.cat([self._one(home, image[None], summarise) for image in rgb])

    def _home(self, device: str) -> Path:
        # Another number of threads adds up in another order.
        threads = torch.get_num_threads() if device == "cpu" else 0
        made_by = {**self._made_by, "device": device, "threads": threads, "autocast": torch.is_autocast_enabled(device)}
        return self.folder / digest_of(made_by)[:_DIGITS]

    def _one(self, home: Path, image: Tensor, summarise: Callable[[Tensor], Tensor]) -> Tensor:
        path = home / f"{_digest(image)}.safetensors"
        found = _read(path)
        if found is None:
            with torch.no_grad():
                found = summarise(image)
            home.mkdir(parents=True, exist_ok=True)
            write_atomic(path, save({_NAME: found.cpu()}))
        return found.to(image.device)


def _digest(image: Tensor) -> str:
    pixels = image.cpu().contiguous()
    return hashlib.sha256(str(list(pixels.shape)).encode() + pixels.numpy().tobytes()).hexdigest()


def _read(path: Path) -> Tensor | None:
    """A summary; None if it is not there, or was damaged: then it is made again."""
    try:
        return load_file(path)[_NAME]
    except (OSError, SafetensorError, KeyError):
        return None
