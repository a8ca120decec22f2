"""Checkpoints of other people, as torch saved them, read without trusting them."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch

from pseudo_labels.errors import PocketiqaError

_ZIP_MAGIC = b"PK\x03\x04"
_FORBIDDEN = re.compile(r"GLOBAL ([\w.]+)")  # how torch names what a pickle wants to call


def read_torch_file(path: Path) -> Any:
    """The content of a ``.pth`` or ``.bin`` file; nothing in it is ever run.

    Raises:
        PocketiqaError: it is not there, cut off or no checkpoint, or holds more than tensors; one line that says which.
    """
    is_zip = False
    try:
        with open(path, "rb") as file:
            is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        # Mapped, a checkpoint of 4 GB is not held in memory twice.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except FileNotFoundError as error:
        raise PocketiqaError(f"no checkpoint at {path}: the file does not exist, mend the path") from error
    except OSError as error:
        raise PocketiqaError(
            f"{path} cannot be read ({error.strerror or error}): mend that, or fetch it again"
        ) from error
    except Exception as error:  # a damaged pickle or archive can raise anything
        raise PocketiqaError(f"{path} {_fault(error, is_zip)}") from error


def _fault(error: Exception, is_zip: bool) -> str:
    code = _FORBIDDEN.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if code:
        return f"was refused: it holds more than tensors, it asks for {code[1]}; fetch the official file"
    state = "is cut off or damaged" if is_zip else "is no torch checkpoint"
    return f"{state} ({type(error).__name__}): fetch it again"
