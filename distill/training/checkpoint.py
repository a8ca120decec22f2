"""Checkpoints of a training run: written whole or not at all, trusted only if every byte is as written.

``checkpoints/step-00000123/`` holds one safetensors file for each of student, ema, optimizer (and adapters, if there
are any) and ``progress.json`` with their sizes and digests. Never a teacher, never a pickle; all bytes follow from the
training state alone.
"""

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.files import canonical_json, digest_of, parse_json, sha256_bytes, staged_folder

FORMAT = 1
PROGRESS = "progress.json"
# The newest, and the one before it in case the newest turns out incomplete.
KEPT = 2
# torch's name for it in the state of an optimiser.
_STEP_COUNT = "step"
_NAME = re.compile(r"step-(\d{8})")

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        step: optimiser steps done.
        images_seen: training images seen, over all processes.
        history_bytes: length of ``history.jsonl`` at this step.
        best_step: step of the best validation so far; None before the first.
        best_score: its SRCC, in [-1, 1].
        means: sums of the training record that is under way, see ``history.Mean``.
        scaler: state of the fp16 gradient scaler; empty in other precisions.
        part_images: see ``loop.Gradient``.
    """

    step: int
    images_seen: int
    history_bytes: int
    best_step: int | None = None
    best_score: float | None = None
    means: dict[str, float] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    part_images: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and is whole: its progress and its tensors by file (``student``, ``ema``, ...)."""

    progress: RunState
    tensors: Mapping[str, Tensors]


class _TornError(Exception):
    """A part of a checkpoint is missing."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: folder of the checkpoints; made when the first one is saved.
        run: digest of what determines the run; a checkpoint of another run is refused.
    """

    def __init__(self, folder: Path, run: str):
        self.folder = folder
        self._run = run

    def path(self, step: int) -> Path:
        """Folder of the checkpoint of ``step``."""
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps that have a folder, whole or not, in rising order."""
        names = (_NAME.fullmatch(path.name) for path in self.folder.glob("step-*"))
        return sorted(int(name[1]) for name in names if name)

    def save(self, progress: RunState, tensors: Mapping[str, Tensors]) -> None:
        """Commit a checkpoint, then remove all but the last two and the best of both.

        Raises:
            StorageFullError: the disk is full; the earlier checkpoints are untouched.
        """
        # Digests are of the bytes in memory: what a faulty disk gives back later is compared with what was meant.
        files = {f"{name}.safetensors": _serialised(part) for name, part in tensors.items()}
        record = {
            "format": FORMAT,
            "run": self._run,
            "progress": asdict(progress),
            "files": {name: {"bytes": len(data), "sha256": sha256_bytes(data)} for name, data in files.items()},
        }
        # Flushed to the disk and renamed: a killed process leaves a hidden folder, which ``clean`` removes.
        with staged_folder(self.path(progress.step)) as staged:
            for name, data in files.items():
                (staged / name).write_bytes(data)
            (staged / PROGRESS).write_bytes(canonical_json(record | {"digest": digest_of(record)}))
        self._prune(progress)

    def _prune(self, progress: RunState) -> None:
        # Kept for the case that the newest turns out torn: the one before it, and the best that one knows.
        kept = [step for step in self.steps() if step <= progress.step][-KEPT:]
        best = {progress.best_step}
        for step in kept[:-1]:
            try:
                best.add(self._record(step)[0].best_step)
            # Pruning comes after the commit: a corrupt older checkpoint must not fail a run that has just been saved.
            except (_TornError, IntegrityError):
                continue
        for step in self.steps():
            if step not in {*kept, *best}:
                shutil.rmtree(self.path(step))

    def clean(self, newest: int) -> None:
        """Remove leftovers of killed writers, and everything after step ``newest``, from which the run continues."""
        for leftover in self.folder.glob(".step-*.staged"):
            shutil.rmtree(leftover)
        for step in self.steps():
            if step > newest:
                shutil.rmtree(self.path(step))

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest complete checkpoint, and why newer ones were not used.

        Raises:
            IntegrityError: it was altered.
        """
        notes: list[str] = []
        for step in reversed(self.steps()):
            try:
                return self._load(step), notes
            # Only what is incomplete is passed over, as a crash of the machine can leave it. An altered checkpoint
            # raises: to go back in silence would hide that somebody changed it.
            except _TornError as error:
                notes.append(f"{self.path(step)} is incomplete ({error}): an earlier checkpoint is used")
        return None, notes

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of ``step``.

        Raises:
            PocketiqaError: it is incomplete.
            IntegrityError: it was altered.
        """
        try:
            return self._load(step)
        except _TornError as error:
            raise PocketiqaError(
                f"the checkpoint {self.path(step)} is incomplete ({error}): restore it or add --overwrite to start over"
            ) from error

    def _record(self, step: int) -> tuple[RunState, dict[str, dict[str, Any]]]:
        path = self.path(step) / PROGRESS
        try:
            record = parse_json(path.read_bytes())
        except FileNotFoundError as error:
            raise _TornError(f"{PROGRESS} is missing") from error
        except ValueError as error:
            raise _TornError(f"{PROGRESS} is not whole") from error
        try:
            # Before anything in it is believed: an edited step or score is as wrong as an edited weight.
            digest = record.pop("digest")
            if digest != digest_of(record):
                raise _altered(path, "its own digest does not match")
            if record["format"] != FORMAT:
                raise PocketiqaError(f"{path} has format version {record['format']!r}, this pocketiqa reads {FORMAT}")
            # The folder may have been copied from a run with other settings or data.
            if record["run"] != self._run:
                raise _altered(path, "it belongs to a run with other settings or data")
            return RunState(**record["progress"]), record["files"]
        # JSON of another shape: not written by this program, or edited.
        except (AttributeError, KeyError, TypeError) as error:
            raise _altered(path, f"{type(error).__name__} while reading it") from error

    def _load(self, step: int) -> Checkpoint:
        progress, files = self._record(step)
        tensors = {}
        for name, expected in files.items():
            data = _read(self.path(step) / name, expected)
            tensors[name.removesuffix(".safetensors")] = safetensors.torch.load(data)
        return Checkpoint(progress, tensors)


def _read(path: Path, expected: Mapping[str, Any]) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise _TornError(f"{path.name} is missing") from error
    # Fewer bytes: not written to the end. As many, but other ones: changed afterwards.
    if len(data) < expected["bytes"]:
        raise _TornError(f"{path.name} has {len(data)} of {expected['bytes']} bytes")
    if sha256_bytes(data) != expected["sha256"]:
        raise _altered(path, "its SHA-256 is not the recorded one")
    return data


def _altered(path: Path, reason: str) -> IntegrityError:
    return IntegrityError(
        f"{path} was altered ({reason}): remove {path.parent} to go on from an earlier checkpoint, "
        "or add --overwrite to start over"
    )


def _serialised(tensors: Mapping[str, Tensor]) -> bytes:
    # Contiguous: channels-last weights are stored in the order of their shape, as every reader expects.
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def load_tensors(module: nn.Module, tensors: Tensors) -> None:
    """Copy ``tensors`` into the parameters and buffers of ``module``, keeping their memory layout.

    Raises:
        IntegrityError: names or shapes are not those of the module.
    """
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise IntegrityError(f"the checkpoint does not fit the model it was made for: {error}") from error


def optimizer_tensors(optimizer: Optimizer, named: Iterable[tuple[str, nn.Parameter]]) -> Tensors:
    """The optimiser's state as flat tensors: ``<parameter>.<quantity>``, such as ``head.weight.exp_avg``."""
    return {
        # By name: torch's own state dict numbers parameters group by group, and a reader could not tell whose they are.
        f"{name}.{quantity}": value
        for name, parameter in named
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(optimizer: Optimizer, named: Iterable[tuple[str, nn.Parameter]], tensors: Tensors) -> None:
    """Inverse of ``optimizer_tensors``; moments get the memory layout of their parameter, as in an unbroken run."""
    parameters = dict(named)
    # A parameter without an entry has not had a gradient yet; torch makes its state at the first one.
    for key, value in tensors.items():
        name, _, quantity = key.rpartition(".")
        if name not in parameters:
            raise IntegrityError(f"the checkpoint's optimizer knows {name!r}, which is no parameter of the model")
        parameter = parameters[name]
        # The count of steps stays on the CPU, where torch keeps it; moments go to the device of their parameter. By its
        # name, for a parameter that is one number has moments without a dimension, too.
        moment = quantity != _STEP_COUNT and value.shape == parameter.shape
        restored = torch.empty_like(parameter).detach().copy_(value) if moment else value.clone()
        optimizer.state[parameter][quantity] = restored
