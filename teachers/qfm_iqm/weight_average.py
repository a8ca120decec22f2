"""Several fittings of one teacher to one that needs no other file: the mean of their weights.

Fittings that began at the same weights and saw different data or orders end in one wide basin, where the mean of the
weights judges about as well as the mean of the judgements, at the cost of one teacher: Wortsman et al., "Model soups:
averaging weights of multiple fine-tuned models improves accuracy without increasing inference time", ICML 2022, arXiv
2203.05482 (the uniform soup).
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from teachers.fitted_folder import is_fitted_folder, read_fitted_folder, read_seen, write_fitted_folder
from teachers.fitting import NEW_HEAD
from teachers.qfm_iqm.build import build_qfm_iqm
from teachers.qfm_iqm.model import HEAD
from teachers.qfm_iqm.teacher import QfmIqmTeacher

NAME = "qfm_iqm"
BACKBONE_FILE = "backbone.safetensors"

# Where a teacher lies and how fast it computes is its own affair; the merged one has a backbone in its folder.
_OWN = ("weights", "pretrained", "trainable", "cache", "head")


def average_fitted(members: Sequence[str], out: Path, *, half: bool = False) -> str:
    """Write the mean of fitted teachers as a folder of its own, with the backbone in it.

    The backbone's file has timm's key names: a student can start from it (``student.init``).

    Args:
        members: folders that ``pocketiqa fit-teacher`` wrote; at least one, which is then only made independent.
        out: folder to write, whole or not at all; replaced if it is there.
        half: keep the backbone in float16, half the size; it computes in float32 still.

    Returns:
        SHA-256 of the fitted part.

    Raises:
        PocketiqaError: no member, one that is no fitted ``qfm_iqm``, or members of different options or backbones.
    """
    if not members:
        raise PocketiqaError("no teacher to merge: name at least one folder of a fitted qfm_iqm")
    options = {name: value for name, value in _options(members[0]).items() if name not in _OWN}
    teachers = [_opened(name, members[0], options) for name in members]
    with TemporaryDirectory() as folder:
        backbone = Path(folder) / BACKBONE_FILE
        save_file(_rounded(_mean([one.model.backbone.model.state_dict() for one in teachers]), half), backbone)
        merged = build_qfm_iqm(**options, weights=backbone, trainable=HEAD, head=NEW_HEAD)
        _fill(merged, _mean([one.model.state_dict() for one in teachers]))
        return write_fitted_folder(
            out, merged, name=NAME, options={**options, "weights": backbone, "trainable": HEAD},
            scale=teachers[0].scale, licence=teachers[0].licence,
            seen=frozenset().union(*(read_seen(name) for name in members)),
            about={"merged": [one.stamp.digest for one in teachers], "half": half},
            files=["weights"],
        )  # fmt: skip


def _options(member: str) -> dict[str, Any]:
    if not is_fitted_folder(member):
        raise PocketiqaError(f"{member} is no folder of a fitted teacher: name what `pocketiqa fit-teacher` wrote")
    name, options = read_fitted_folder(member)
    if name != NAME:
        raise PocketiqaError(f"{member} holds a fitted {name!r}, but only {NAME} can be merged")
    return options


def _opened(member: str, first: str, options: dict[str, Any]) -> QfmIqmTeacher:
    """A member, on the CPU, if it differs from the first in nothing but what was fitted."""
    found = _options(member)
    own = {name: value for name, value in found.items() if name not in _OWN}
    if own != options:
        changed = sorted(name for name in own.keys() | options.keys() if own.get(name) != options.get(name))
        raise PocketiqaError(
            f"{member} was fitted with another {changed[0]} ({own.get(changed[0])!r}) than {first} "
            f"({options.get(changed[0])!r}): merge fittings that differ in data and order alone"
        )
    return build_qfm_iqm(**{**found, "cache": None})


def _mean(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of each tensor; what only counts is taken from the first."""
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(own != shapes[0] for own in shapes):
        raise PocketiqaError("the teachers have tensors of different shapes: merge fittings of one teacher")
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).float() if value.is_floating_point()
        else value.clone()
        for name, value in states[0].items()
    }  # fmt: skip


def _rounded(state: dict[str, Tensor], half: bool) -> dict[str, Tensor]:
    return {
        name: value.half().contiguous() if half and value.is_floating_point() else value.contiguous()
        for name, value in state.items()
    }


@torch.no_grad()
def _fill(teacher: QfmIqmTeacher, state: dict[str, Tensor]) -> None:
    for name, value in teacher.trained_state().items():
        value.copy_(state[name])
