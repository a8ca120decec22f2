"""Weight average of several fits of one teacher ("model soup"), written as a folder that needs no other file.

Fits that began at the same weights and saw different data, or the data in different orders, end in one wide basin of
the loss. There, a model with the mean of their weights scores about as well as the mean of their scores, at the cost of
one teacher: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time", ICML 2022, arXiv 2203.05482 (the uniform soup).
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

# Options in which members may differ: locations of files, and what was fitted. The average has its own.
_OWN = ("weights", "pretrained", "trainable", "cache", "head")


def average_fitted(members: Sequence[str], out: Path, *, half: bool = False) -> str:
    """Write the weight average of fitted teachers as a folder of its own, with the backbone in it.

    The backbone's file has timm's key names: a student can start from it (``student.init``).

    Args:
        members: folders that ``pocketiqa fit-teacher`` wrote, at least one. A single one keeps its weights and no
            longer needs the file of its backbone.
        out: folder to write, whole or not at all; replaced if it exists.
        half: store the backbone in float16, at half the size; it still computes in float32. The head is rounded too and
            stored in float32, as all fitted parts are: an archive, such as a wheel, packs it to half.

    Returns:
        SHA-256 of the fitted part, hex.

    Raises:
        PocketiqaError: there is no member, one is no fitted ``qfm_iqm``, or they differ in options or shapes.
    """
    if not members:
        raise PocketiqaError("no teacher to average: name at least one folder of a fitted qfm_iqm")
    options = {name: value for name, value in _options(members[0]).items() if name not in _OWN}
    teachers = [_opened(name, members[0], options) for name in members]
    with TemporaryDirectory() as folder:
        backbone = Path(folder) / BACKBONE_FILE
        save_file(_rounded(_mean([one.model.backbone.model.state_dict() for one in teachers]), half), backbone)
        # Members may have fitted parts of their backbones. The averaged backbone is a file of its own, so only the head
        # of the averaged teacher is a fitted part. The file is read back, so that the stamp is of the backbone as it is
        # stored, in half precision or not.
        averaged = build_qfm_iqm(**options, weights=backbone, trainable=HEAD, head=NEW_HEAD)
        _fill(averaged, _rounded(_mean([one.model.state_dict() for one in teachers]), half))
        # ``merged`` is a key in folders on disk, and keeps its name.
        return write_fitted_folder(
            out, averaged, name=NAME, options={**options, "weights": backbone, "trainable": HEAD},
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
        raise PocketiqaError(f"{member} holds a fitted {name!r}, but only {NAME} can be averaged")
    return options


def _opened(member: str, first: str, options: dict[str, Any]) -> QfmIqmTeacher:
    """The teacher of a member, on the CPU, after a check that its options are those of the first member."""
    stored = _options(member)
    own = {name: value for name, value in stored.items() if name not in _OWN}
    if own != options:
        changed = sorted(name for name in own.keys() | options.keys() if own.get(name) != options.get(name))
        raise PocketiqaError(
            f"{member} was fitted with another {changed[0]} ({own.get(changed[0])!r}) than {first} "
            f"({options.get(changed[0])!r}): average fits that differ only in their data and its order"
        )
    # Without the cache of its fit: no image is scored here.
    return build_qfm_iqm(**{**stored, "cache": None})


def _mean(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of each tensor; integers, which are counters of batches, are taken from the first state."""
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(own != shapes[0] for own in shapes):
        raise PocketiqaError("the teachers have tensors of different shapes: average fits of one teacher")
    # In float64, so that one member alone comes back to the bit and the order of the members hardly matters.
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
