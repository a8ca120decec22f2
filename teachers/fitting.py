"""The interface of a teacher that can be fitted, its fitted tensors on disk, and what all such teachers use."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import canonical_json, digest_of
from pseudo_labels.outputs import differences
from pseudo_labels.records import TeacherStamp
from pseudo_labels.tensor_files import misfits
from teachers.base import Teacher
from teachers.checksummed import read_checksummed, tensor_digest, write_checksummed
from teachers.needs import NEW_HEAD

_KIND = "fitted teacher"
_MEND = "give a file that `pocketiqa fit-teacher` made, or fit the teacher again"
# Part of stamps, and so of the digests of existing labels: the words must not change.
UNFITTED = "none: this head was not fitted to opinion scores"
"""The scale of a teacher with such a head."""
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Trained:
    """A fitted part.

    Attributes:
        teacher: its name, such as ``sam_iqa``.
        config: options that it was fitted with and that a teacher must have to take the tensors, JSON values.
        base: digest of the frozen part.
        tensors: by name in the model; float32, or counts.
        scale: what 0 and 1 mean, for a person.
        licence: licence of weights and ratings, as far as known.
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
    write_checksummed(path, _KIND, head, trained.tensors)


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
        IntegrityError: corrupt or altered.
    """
    head, tensors = read_checksummed(path, _KIND, mend=_MEND)
    return Trained(tensors=tensors, **head)


def check_fits(trained: Trained, target: Trained, path: Path) -> None:
    """Refuse a fitted part of another model.

    Args:
        trained: read from ``path``.
        target: what is to be replaced by it.
        path: path to name in the message.

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
    # Nothing else would show it: on other frozen weights all shapes fit, and the scores mean nothing.
    if trained.base != target.base:
        raise PocketiqaError(
            f"{path} was fitted on the frozen base {trained.base[:12]}..., this one is {target.base[:12]}...: "
            "give the weights that it was fitted on"
        )
    said = misfits(target.tensors, trained.tensors)
    if said:
        raise PocketiqaError(f"{path} does not fit this version of {target.teacher} ({said}): fit it again")


@runtime_checkable
class FittableTeacher(Teacher, Protocol):
    """A teacher whose weights ``pocketiqa fit-teacher`` can fit to ratings; needs no base class.

    Attributes:
        model: the whole network, in evaluation mode outside of fitting.
    """

    @property
    def model(self) -> nn.Module: ...  # noqa: D102

    def fitting_module(self) -> nn.Module:
        """A module around ``model``, sharing its parameters, built anew at each call.

        Its ``forward(inputs, target, weight)`` gets a tuple of the stacked tensors of ``preprocess`` [B, ...], and
        target and weight, float32 [B]; it returns the score, float32 [B], not clamped and with its gradient, and
        further terms of the loss by name, scalars already weighted. Its buffers that are not the model's are kept in
        checkpoints. ``train`` leaves what is frozen in evaluation mode.
        """
        ...

    def trained_state(self) -> dict[str, Tensor]:
        """What fitting changes, by name in ``model``: the model's own tensors."""
        ...

    def save_trained(self, path: str | Path, *, scale: str, licence: str) -> None:
        """Write what fitting changed; see ``FittableBase``."""
        ...

    def load_trained(self, path: str | Path) -> None:
        """Take over what was fitted before; see ``FittableBase``."""
        ...


@runtime_checkable
class SolvableTeacher(Protocol):
    """A fittable teacher that is solved at once, from one summary of each image, in place of being trained in steps."""

    def summarise(self, batch: list[Any]) -> np.ndarray:
        """Summaries float32 [B, D] of items of ``preprocess``."""
        ...

    def solve(
        self, summaries: np.ndarray, target: np.ndarray, weight: np.ndarray, groups: Sequence[str], seed: int
    ) -> np.ndarray:
        """Fit to N rated images, in place.

        Args:
            summaries: of all images, [N, D].
            target: ratings in [0, 1], [N].
            weight: weights above 0, [N].
            groups: scene of each image; whole scenes are held out where settings are chosen.
            seed: seed of the folds of scenes.

        Returns:
            Scores [N] in [0, 1] of the same images by fits that did not see their scenes.
        """
        ...


def check_fittable(teacher: Any, name: str) -> FittableTeacher:
    """The same object, if it can be fitted.

    Raises:
        PocketiqaError: it lacks a member, has nothing to fit, or has it in lower precision; the message names it.
    """
    needed = ("model", "fitting_module", "trained_state", "save_trained", "load_trained")
    missing = [attribute for attribute in needed if not hasattr(teacher, attribute)]
    if missing or not isinstance(teacher, FittableTeacher):
        lacks = ", ".join(missing) or "the interface of a teacher"
        raise PocketiqaError(
            f"teacher {name!r} cannot be fitted: {type(teacher).__name__} is without {lacks}; see "
            "teachers.fitting.FittableTeacher for what it needs"
        )
    state = teacher.trained_state()
    if not state:
        raise PocketiqaError(
            f"teacher {name!r} cannot be fitted: its trained_state is empty; let a part of its model be trainable"
        )
    refuse_lower_precision(state)
    return teacher


class PlainFit(nn.Module):
    """Fitting by the score alone.

    Args:
        model: called with the stacked inputs; its output has a ``score`` [B].
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, inputs: Sequence[Tensor], target: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The score as the model gives it, and no further term."""
        return self.model(*inputs).score, {}


def evaluate_frozen(model: nn.Module) -> None:
    """Put the parts into evaluation mode in which nothing is trained: their dropout and batch norms stand still.

    For ``train`` of a model, after ``super().train(mode)``. A part without parameters goes with what it is a part of.
    """
    for part in model.children():
        trained = [parameter.requires_grad for parameter in part.parameters()]
        if trained and not any(trained):
            part.eval()
        else:
            evaluate_frozen(part)


def head_file(head: str | Path | None) -> Path | None:
    """The file that ``head`` of a builder names, if it names one."""
    return None if head is None or str(head) == NEW_HEAD else Path(head).expanduser()


class FittableBase(Generic[Network]):
    """The fitted part of a teacher: kept with its scale and licence, saved, loaded and identified by digest.

    Attributes:
        version: version of the teacher's code, raised whenever scores change.

    Args:
        name: name of the teacher.
        model: all its weights loaded, in full precision still, so that digests do not depend on the precision.
        fitted_with: options that a fitted part is bound to, JSON values.
        base: digest of everything else that a score depends on.
        licence: licence of the weights.
        head: file of a fitted part, loaded here.
        scale: meaning of 0 and 1, unless ``head`` has it.

    Raises:
        PocketiqaError: ``head`` is missing, corrupt or of another model.
    """

    version: int

    def __init__(
        self,
        name: str,
        model: Network,
        *,
        fitted_with: dict[str, Any],
        base: str,
        licence: str,
        head: Path | None = None,
        scale: str = UNFITTED,
    ):
        self.name, self.model = name, model.eval()
        # By name: a model that is no longer asked for gradients is the same teacher still.
        self._trained_names = [name for name, value in model.named_parameters() if value.requires_grad]
        self.fitted_with, self.base = fitted_with, base
        self.scale, self.licence = scale, licence
        self._digest: tuple[tuple[int, ...], str] | None = None
        if head is not None:
            self.load_trained(head)
        _ = self.weights  # now: moving or rounding the model later does not count as a change

    def stamp_options(self) -> dict[str, Any]:
        """What scores depend on beside the weights, as JSON values: here what a fitted part is bound to."""
        return dict(self.fitted_with)

    @property
    def stamp(self) -> TeacherStamp:
        """Identity, with a digest of the weights as they are now."""
        return TeacherStamp(
            self.name,
            self.version,
            weights=self.weights,
            options=self.stamp_options(),
            scale=self.scale,
            licence=self.licence,
        )

    @property
    def weights(self) -> str:
        """Digest of all weights as they are now, for the stamp (seconds for a billion of them, after a change)."""
        state = self.trained_state()
        # torch counts the changes of a tensor's values, so that they are not hashed at every look.
        changes = tuple(value._version for value in state.values())
        if self._digest is None or self._digest[0] != changes:
            self._digest = (changes, tensor_digest(state))
        return digest_of({"base": self.base, "trained": self._digest[1]})

    def forget_digest(self) -> None:
        """To be called where tensors of the model were replaced, which torch does not count as a change of them."""
        self._digest = None

    def to(self, device: torch.device | str) -> Self:
        """Compute on this device from now on."""
        self.model.to(device)
        return self

    def fitting_module(self) -> nn.Module:
        """What the fitting loop trains: here the score alone."""
        return PlainFit(self.model)

    def trained_state(self) -> dict[str, Tensor]:
        """What fitting changes, by name in the model; the tensors are the model's own."""
        parameters = dict(self.model.named_parameters())
        return {name: parameters[name].detach() for name in self._trained_names}

    def save_trained(self, path: str | Path, *, scale: str, licence: str) -> None:
        """Write what fitting changed, with the digest of the frozen base.

        Args:
            path: path of the safetensors file.
            scale: what 0 and 1 mean, such as ``MOS of KonIQ-10k / 100``.
            licence: licence of weights and ratings, as far as known.

        Raises:
            PocketiqaError: the trained part is in lower precision.
        """
        save_trained(Path(path), self._trained(scale, licence))

    def load_trained(self, path: str | Path) -> None:
        """Take over what was fitted before; scale and licence come with it.

        Raises:
            PocketiqaError: not there, or fitted in another model or on another base.
            IntegrityError: corrupt or altered.
        """
        trained = read_trained(Path(path))
        target = self._trained(self.scale, self.licence)
        # All checks come before the first copy: a file that is refused leaves the model as it was.
        check_fits(trained, target, Path(path))
        with torch.no_grad():
            for name, value in target.tensors.items():
                # In place: torch counts this as a change of the model's own tensors, so that ``weights`` hashes them
                # anew.
                value.copy_(trained.tensors[name])
        self.scale, self.licence = trained.scale, trained.licence

    def _trained(self, scale: str, licence: str) -> Trained:
        return Trained(
            self.name, self.fitted_with, base=self.base, tensors=self.trained_state(), scale=scale, licence=licence
        )
