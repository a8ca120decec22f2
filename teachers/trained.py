"""What fitting learned, as one sealed file that names the teacher, its options and the frozen base it belongs to."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import canonical_json
from pseudo_labels.outputs import differences
from teachers.misfits import misfits
from teachers.sealed import read_sealed, write_sealed

_KIND = "fitted teacher"
_MEND = "give a file that `pocketiqa fit-teacher` made, or fit the teacher again"


@dataclass(frozen=True)
class Trained:
    """A fitted part.

    Attributes:
        teacher: its name, such as ``sam_iqa``.
        config: options that it was fitted with and that another must share, JSON values.
        base: digest of the frozen part.
        tensors: by name in the model; float32, or counts.
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
        PocketiqaError: a tensor is in lower precision than float32, which loses what was learned.
    """
    refuse_lower_precision(trained.tensors)
    head = {name: value for name, value in vars(trained).items() if name != "tensors"}
    write_sealed(path, _KIND, head, trained.tensors)


def refuse_lower_precision(tensors: Mapping[str, Tensor]) -> None:
    """Refuse to fit, or to keep, what rounds the small steps of an optimiser away.

    Raises:
        PocketiqaError: one of the tensors is neither float32 nor of integers.
    """
    for name, value in tensors.items():
        if value.is_floating_point() and value.dtype != torch.float32:
            raise PocketiqaError(
                f"{name} is {value.dtype}: fit with precision='fp32' (and mixed precision by autocast)"
            )


def read_trained(path: Path) -> Trained:
    """Read and verify a fitted part.

    Raises:
        PocketiqaError: not there, or not written by ``save_trained``.
        TamperedError: damaged or altered.
    """
    head, tensors = read_sealed(path, _KIND, mend=_MEND)
    return Trained(tensors=tensors, **head)


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
    as_read = json.loads(canonical_json(target.config))  # tuples become lists
    changed = differences(trained.config, as_read)
    if changed:
        raise PocketiqaError(
            f"{path} was fitted with other options ({'; '.join(changed)}): build {target.teacher} as it was"
        )
    if trained.base != target.base:
        raise PocketiqaError(
            f"{path} was fitted on the frozen base {trained.base[:12]}..., this one is {target.base[:12]}...: "
            "give the weights that it was fitted on"
        )
    said = misfits(target.tensors, trained.tensors)
    if said:
        raise PocketiqaError(f"{path} does not fit this version of {target.teacher} ({said}): fit it again")
