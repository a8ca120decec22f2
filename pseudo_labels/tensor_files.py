"""Checkpoints of other people, as torch saved them, read without trusting them."""

import pickle
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import parse_json

_ZIP_MAGIC = b"PK\x03\x04"
_FORBIDDEN = re.compile(r"GLOBAL ([\w.]+)")  # how torch names what a pickle wants to call
_SHARDS = ".index.json"


def misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What keeps ``given`` from replacing ``own``, in words that follow a subject; empty if nothing does."""
    wrong_shape = [
        f"{name} of shape {list(given[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    faults = [
        ("it lacks", [name for name in own if name not in given]),
        ("it has the foreign", [name for name in given if name not in own]),
        ("it has", wrong_shape),
    ]
    return ", and ".join(f"{verb} {some(names)}" for verb, names in faults if names)


def some(names: Collection[str]) -> str:
    """The first three names, and how many more there are."""
    listed = sorted(map(str, names))
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def read_torch_file(path: Path) -> Any:
    """The content of a ``.pth`` or ``.bin`` file; nothing in it is ever run.

    Raises:
        PocketiqaError: it is not there, cut off or no checkpoint, or holds more than tensors; one line that says which.
    """
    # Files of torch before 1.6 are plain pickles. Only the zip format can be mapped.
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
    except Exception as error:  # a corrupt pickle or archive can raise anything
        raise PocketiqaError(f"{path} {_fault(error, is_zip)}") from error


def _fault(error: Exception, is_zip: bool) -> str:
    code = _FORBIDDEN.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if code:
        return f"was refused: it holds more than tensors, it asks for {code[1]}; fetch the official file"
    state = "is cut off or corrupt" if is_zip else "is no torch checkpoint"
    return f"{state} ({type(error).__name__}): fetch it again"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name from safetensors, the index of a sharded safetensors file, or a torch file of tensors alone.

    Nothing in the file is ever run: torch files are read with ``weights_only``.

    Raises:
        PocketiqaError: it is not there, cut off, or holds more than tensors; one line that says which.
    """
    if path.name.endswith(_SHARDS):
        return _read_shards(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return tensors_only(read_torch_file(path), str(path))


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        names = sorted(set(parse_json(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise PocketiqaError(f"{index} is no index of weight files ({_first_line(error)}): fetch it again") from error
    tensors: dict[str, Tensor] = {}
    for name in names:
        # The name alone: an index must not lead to files outside of its folder.
        tensors |= _read_safetensors(index.parent / Path(str(name)).name)
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise PocketiqaError(f"{path} is not there: the download is incomplete, fetch it again") from error
    except (SafetensorError, OSError) as error:
        raise PocketiqaError(
            f"{path} is cut off or corrupt ({_first_line(error)}): the download is incomplete, fetch it again"
        ) from error


def tensors_only(content: Any, where: str) -> dict[str, Tensor]:
    """``content`` if it maps names to tensors.

    Raises:
        PocketiqaError: it is something else; ``where`` names its source.
    """
    if isinstance(content, Mapping) and all(isinstance(value, Tensor) for value in content.values()):
        return {str(name): value for name, value in content.items()}
    given = f"the entries {some(list(content))}" if isinstance(content, Mapping) else type(content).__name__
    raise PocketiqaError(f"{where} holds {given}, not tensors by name: give the state dict of the model")


def assign(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Give a module its tensors, in float32; the module may be on the meta device.

    Args:
        module: parameters and persistent buffers are replaced, none is copied into.
        tensors: one tensor for each of them and no other.
        where: what an error calls their source.

    Raises:
        PocketiqaError: missing, foreign or misshapen tensors; the message names them.
    """
    own = module.state_dict()
    refuse_misfits(own, tensors, where)
    # ``assign`` takes tensors as they are, so they get the model's type first: files often hold float16.
    converted = {name: value.to(own[name].dtype) for name, value in tensors.items()}
    module.load_state_dict(converted, assign=True)


def refuse_misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor], where: str) -> None:
    """Refuse tensors that are not exactly those of a module.

    Raises:
        PocketiqaError: names the first of those that are missing, foreign or of another shape.
    """
    said = misfits(own, given)
    if said:
        raise PocketiqaError(f"{where} does not fit the model: {said}; give the checkpoint of this very architecture")


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:120]
