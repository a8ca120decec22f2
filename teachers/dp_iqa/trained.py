"""What fitting learned, as one safetensors file that names the frozen base it belongs to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.outputs import differences
from teachers.dp_iqa.sealed import read_sealed, write_sealed
from teachers.dp_iqa.tensors import refuse_misfits

_KIND = "fitted DP-IQA head"
_MEND = "give a file that `save_trained` wrote for dp_iqa, or fit one"


@dataclass(frozen=True)
class Trained:
    """A fitted part.

    Attributes:
        config: what it was fitted with, JSON values; a score makes sense with the same only.
        base: digest of the frozen part.
        tensors: float32, by parameter name.
        scale: what 0 and 1 mean, for a person.
        licence: of weights and opinion scores, as far as known.
    """

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
    rounded = [name for name, value in trained.tensors.items() if value.dtype != torch.float32]
    if rounded:
        dtype = trained.tensors[rounded[0]].dtype
        raise PocketiqaError(f"{rounded[0]} is {dtype}: fit with precision='fp32' (and mixed precision by autocast)")
    head = {"config": trained.config, "base": trained.base, "scale": trained.scale, "licence": trained.licence}
    write_sealed(path, _KIND, head, trained.tensors)


def read_trained(path: Path) -> Trained:
    """Read and verify a fitted part.

    Raises:
        PocketiqaError: not there, or not written by ``save_trained``.
        TamperedError: damaged or altered.
    """
    head, tensors = read_sealed(path, _KIND, mend=_MEND)
    return Trained(head["config"], head["base"], tensors, head["scale"], head["licence"])


def check_fits(trained: Trained, config: dict[str, Any], base: str, own: dict[str, Tensor], path: Path) -> None:
    """Refuse a fitted part of another model.

    Raises:
        PocketiqaError: it was fitted with other options, on another frozen base, or in another architecture.
    """
    changed = differences(trained.config, config)
    if changed:
        raise PocketiqaError(
            f"{path} was fitted with other options ({'; '.join(changed)}): build the teacher as it was"
        )
    if trained.base != base:
        raise PocketiqaError(
            f"{path} was fitted on the frozen base {trained.base[:12]}..., this one is {base[:12]}...: give the "
            "weights and the text encoder that it was fitted on"
        )
    refuse_misfits(own, trained.tensors, str(path))
