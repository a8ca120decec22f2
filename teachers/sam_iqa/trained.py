"""What fitting learned, as one safetensors file that names the frozen base it belongs to.

Nothing here knows SAM: any teacher with a frozen base can keep its fitted part this way.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pseudo_labels.errors import PocketiqaError, TamperedError
from pseudo_labels.files import canonical_json, write_atomic
from pseudo_labels.outputs import differences
from teachers.tensor_digest import tensor_digest

_KEY = "pocketiqa.trained"
FORMAT = 1


@dataclass(frozen=True)
class Trained:
    """A fitted part.

    Attributes:
        teacher: its name, such as ``sam_iqa``.
        config: options of the model that it was fitted in and that another must share, as JSON values.
        base: digest of that model's frozen part.
        tensors: float32, by parameter name.
        scale: what 0 and 1 mean, for a person.
        licence: of weights and opinion scores, as far as known.
    """

    teacher: str
    config: dict[str, Any]
    base: str
    tensors: dict[str, Tensor]
    scale: str
    licence: str


def save_trained(path: Path, trained: Trained) -> None:
    """Write a fitted part in one step; equal parts give equal bytes.

    Raises:
        PocketiqaError: a tensor is not float32, which loses what was learned.
    """
    for name, value in trained.tensors.items():
        if value.dtype != torch.float32:
            raise PocketiqaError(
                f"{name} is {value.dtype}: fit with precision='fp32' (and mixed precision by autocast)"
            )
    head = {
        "format": FORMAT,
        "teacher": trained.teacher,
        "config": trained.config,
        "base": trained.base,
        "trained": tensor_digest(trained.tensors),
        "scale": trained.scale,
        "licence": trained.licence,
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in trained.tensors.items()}
    write_atomic(path, save(tensors, {_KEY: canonical_json(head).decode()}))


def read_trained(path: Path) -> Trained:
    """Read and verify a fitted part.

    Raises:
        PocketiqaError: not there, or not written by ``save_trained``.
        TamperedError: damaged or altered.
    """
    if not path.is_file():
        raise PocketiqaError(f"no fitted teacher at {path}: fit one and keep it with `save_trained`, or mend the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise TamperedError(f"{path} is not a whole safetensors file ({error}); restore it or fit again") from error
    head = _head(metadata, path)
    if tensor_digest(tensors) != head.get("trained"):
        raise TamperedError(f"{path} was altered: its tensors are not those that were saved; restore it or fit again")
    try:
        return Trained(head["teacher"], head["config"], head["base"], tensors, head["scale"], head["licence"])
    except KeyError as error:
        raise TamperedError(f"{path}: its {_KEY} entry lacks {error}; restore it or fit again") from error


def _head(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    if _KEY not in metadata:
        raise PocketiqaError(f"{path} holds no fitted teacher: give a file that `save_trained` wrote")
    try:
        head = json.loads(metadata[_KEY])
    except ValueError as error:
        raise TamperedError(f"{path}: its {_KEY} entry is not JSON ({error}); restore it or fit again") from error
    found = head.get("format") if isinstance(head, dict) else None
    if found != FORMAT:
        raise PocketiqaError(
            f"{path} has format version {found!r}, but this pocketiqa reads {FORMAT}: upgrade pocketiqa"
        )
    return head


def check_fits(trained: Trained, target: Trained, path: Path) -> None:
    """Refuse a fitted part of another model.

    Args:
        trained: read from ``path``.
        target: what is to be replaced by it.
        path: for the message.

    Raises:
        PocketiqaError: it was fitted for another teacher, with other options, on another frozen base, or has other
            tensors.
    """
    if trained.teacher != target.teacher:
        raise PocketiqaError(f"{path} was fitted for {trained.teacher!r}, not {target.teacher!r}: give a file of that")
    changed = differences(trained.config, target.config)
    if changed:
        raise PocketiqaError(
            f"{path} was fitted with other options ({'; '.join(changed)}): build the teacher with them"
        )
    if trained.base != target.base:
        raise PocketiqaError(
            f"{path} was fitted on the frozen base {trained.base[:12]}..., this one is {target.base[:12]}...: "
            "give the weights that it was fitted on"
        )
    faults = differences(_shapes(trained), _shapes(target))
    if faults:
        raise PocketiqaError(
            f"{path} does not fit this version of {target.teacher} ({'; '.join(faults[:3])}): fit again"
        )


def _shapes(trained: Trained) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in trained.tensors.items()}
