"""Fittings of about a second, mostly of the small teacher, and what they leave behind."""

import json
import os
import signal
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from distill.data.examples import LabelTable, Source
from distill.recipe.training import FitConfig
from distill.training.loop import InterruptedRunError
from distill.training.teacher import FitResult, fit_teacher
from pseudo_labels import outputs
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool
from tests.helpers.fitting import NAME
from tests.helpers.training import score_of

# All that a fitting keeps: random numbers of dropout, a memory, statistics of a norm, an average.
STATEFUL = {"options": {"dropout": 0.3, "extra": 0.5, "norm": True}, "ema_decay": 0.9}


def small_config(**changes: Any) -> FitConfig:
    """A fitting of about a second; dotted names (``losses__plcc``) change nested settings."""
    tree: dict[str, Any] = {
        "teacher": NAME, "steps": 6, "batch_size": 8, "device": "cpu", "threads": 1, "tracker": "none",
        "validate_every_steps": 3, "checkpoint_every_steps": 2, "log_every_steps": 2,
        "images": {"crop_size": 64},
        "optimizer": {"learning_rate": 2e-2, "warmup_steps": 2},
        "split": {"validation": 0.25},
    }  # fmt: skip
    for name, value in changes.items():
        *path, last = name.split("__")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = deepcopy(value)
    return FitConfig(**tree)


def ratings(pool: Pool, name: str = "textures") -> Source:
    """The pool with what its noise is worth as scores of people."""
    return Source(name, pool, LabelTable([ref.id for ref in pool], [score_of(ref) for ref in pool]))


def fit_folder(data: str, out: str, changes: dict[str, Any], stop_at: int | None = None) -> FitResult:
    """Fit on ``data/pool``; with arguments that JSON can carry, for processes of their own.

    At step ``stop_at`` the main process, and no other, gets a SIGTERM.
    """

    def progress(done: int, _: int) -> None:
        if done == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    source = ratings(Pool.open(Path(data) / "pool"))
    return fit_teacher(small_config(**changes), [source], Path(out), progress=progress)


def fit_unfinished(data: str, out: str, changes: dict[str, Any]) -> None:
    """Fit as ``fit_folder``; of a finished fitting, repeat the last moments before it was finished."""
    if (Path(out) / outputs.MANIFEST).exists():
        manifest = outputs.read_manifest(Path(out), "fit")
        outputs.write_manifest(Path(out), replace(manifest, complete=False, content={}))
    fit_folder(data, out, changes)


def run(source: Source, out: Path, **changes: Any) -> FitResult:
    """Fit with changes to ``small_config``."""
    return fit_teacher(small_config(**changes), [source], out)


def fitted(out: Path) -> dict[str, Tensor]:
    """What was learned."""
    return load_file(out / "teacher" / "fitted.safetensors")


def checkpoint(out: Path, step: int, name: str) -> dict[str, Tensor]:
    """One file of a checkpoint."""
    return load_file(out / "checkpoints" / f"step-{step:08d}" / f"{name}.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether names and values agree, to the bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def files(out: Path) -> dict[str, bytes]:
    """Everything but the timings, the only file that may tell how often a run was interrupted."""
    paths = (path for path in out.rglob("*") if path.is_file() and path.name != "timings.jsonl")
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def interrupted(source: Source, out: Path, at: int, **changes: Any) -> None:
    """Fit until a SIGTERM at step ``at``."""

    def progress(done: int, _: int) -> None:
        if done == at:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRunError, match=rf"SIGTERM at step {at} of"):
        fit_teacher(small_config(**changes), [source], out, progress=progress)


if __name__ == "__main__":
    for arguments in json.loads(sys.argv[1]):
        try:
            fit_folder(*arguments)
        except PocketiqaError as error:
            print(f"refused: {error}", flush=True)
