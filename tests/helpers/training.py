"""Tiny training runs: a pool of textures whose noise is their score, labels, settings, and a function for processes."""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distill.data.examples import LabelTable, Source
from distill.data.levels import LevelLists
from distill.recipe.stages import DropSettings
from distill.recipe.training import TrainConfig
from distill.training.student import TrainResult, train
from pseudo_labels import outputs
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import sha256_file
from pseudo_labels.pool import Pool, write_pool
from pseudo_labels.records import ImageRef, PseudoLabel, Status, TeacherStamp
from pseudo_labels.store import LabelStore, StoreSpec

STAMP = TeacherStamp("texture", 1, "none")


def texture(scene: int, noise: float, size: tuple[int, int]) -> np.ndarray:
    """A smooth random picture of ``scene`` under noise of deviation ``noise``: uint8 [H, W, 3]."""
    coarse = np.random.default_rng(scene).integers(40, 216, (5, 5, 3), dtype=np.uint8)
    smooth = np.array(Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC), dtype=np.float64)
    if noise:
        smooth += np.random.default_rng([scene, round(noise * 1000)]).normal(0, noise, smooth.shape)
    return np.clip(smooth, 0, 255).astype(np.uint8)


def texture_pool(
    folder: Path, *, scenes: int = 8, versions: int = 4, sizes: Sequence[tuple[int, int]] = ((80, 96), (96, 80))
) -> Pool:
    """``folder/pool``: per scene a clean picture and noisier ones; levels 0 to 5 rise with the noise."""
    (folder / "images").mkdir(parents=True)
    refs: list[ImageRef] = []
    for scene in range(scenes):
        for version in range(versions):
            level = 5 * version / max(1, versions - 1)
            path = folder / "images" / f"{scene}-{version}.png"
            height, width = sizes[scene % len(sizes)]
            Image.fromarray(texture(scene, 9 * level, (height, width))).save(path, compress_level=1)
            clean = refs[-version].id if version else ""
            digest = sha256_file(path)
            refs.append(
                ImageRef(
                    digest[:24],
                    str(path),
                    sha256=digest,
                    dhash="0" * 16,
                    bytes=path.stat().st_size,
                    width=width,
                    height=height,
                    group=f"scene{scene}",
                    ref_id=clean,
                    distortion="noise" if version else "",
                    level=level,
                )
            )
    return write_pool(
        folder / "pool", refs, spec={"scenes": scenes, "versions": versions, "sizes": list(map(list, sizes))}
    )


def level_source(folder: Path, pool: Pool, *, least: float = 0.02, weight: float = 1.0) -> Source:
    """The order of the levels of a texture pool, whose noise is called ``white_noise``: a pool in ``folder``."""
    refs = [replace(ref, distortion="white_noise" if ref.distortion else "") for ref in pool]
    named = write_pool(folder, refs, spec={"renamed": pool.digest})
    lists = LevelLists.open(named, [DropSettings(distortions=("noise",), least=least)])
    ids = [named[row].id for row in lists.rows]
    labels = LabelTable(ids, np.zeros(len(ids)), np.zeros(len(ids)))
    return Source("levels", named, labels, weight, selects=False, levels=lists)


def score_of(ref: ImageRef) -> float:
    """What the texture teacher says: 0.9 for a clean picture, less by 0.15 with every level."""
    return 0.9 - 0.15 * ref.level


def texture_store(
    folder: Path,
    pool: Pool,
    *,
    features: Mapping[str, np.ndarray] | None = None,
    view: str = "full",
    changes: Mapping[int, Mapping[str, Any]] | None = None,
    shards: int = 3,
) -> LabelStore:
    """Labels of the texture teacher for every row; ``changes`` replaces fields of single rows."""
    features = features or {}
    spec = StoreSpec(
        STAMP,
        pool.digest,
        rows=len(pool),
        shards=shards,
        preprocessing={"view": view},
        features=tuple(sorted(features)),
    )
    store = LabelStore.create(folder, spec, pool_path=pool.folder)
    for index in range(shards):
        rows = store.shard_rows(index)
        labels = [_label(pool[row], view, (changes or {}).get(row, {})) for row in rows]
        store.write_shard(index, labels, {name: array[rows.start : rows.stop] for name, array in features.items()})
    store.finish()
    return store


def _label(ref: ImageRef, view: str, changes: Mapping[str, Any]) -> PseudoLabel:
    values = {"id": ref.id, "uri": ref.uri, "sha256": ref.sha256, "view": view, "score": score_of(ref)}
    if ref.status != Status.OK:
        values |= {"status": ref.status, "reason": ref.reason, "score": float("nan"), "confidence": 0.0}
    return PseudoLabel(**{**values, **changes})


def tiny_config(**changes: Any) -> TrainConfig:
    """A run of seconds on one core; dotted names (``losses__plcc``) change nested settings."""
    tree: dict[str, Any] = {
        "steps": 6, "batch_size": 8, "validate_every_steps": 3, "checkpoint_every_steps": 2, "log_every_steps": 2,
        "device": "cpu", "threads": 1, "tracker": "none", "ema_decay": 0.9,
        "student": {"name": "test_efficientnet", "levels": [4, 8, 16], "head_width": 8, "max_side": 96},
        "images": {"crop_size": 64},
        "optimizer": {"learning_rate": 3e-3, "warmup_steps": 2},
        "split": {"validation": 0.25},
    }  # fmt: skip
    for name, value in changes.items():
        *path, last = name.split("__")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return TrainConfig(**tree)


def stop_at(step: int, number: signal.Signals = signal.SIGTERM) -> Callable[[int, int], None]:
    """A progress callback that sends this process a signal at a step."""

    def progress(done: int, _: int) -> None:
        if done == step:
            os.kill(os.getpid(), number)

    return progress


def train_folder(data: str, out: str, changes: dict[str, Any], stop_at: int | None = None) -> TrainResult:
    """Train on ``data/pool`` and ``data/labels``; with arguments that JSON can carry, for processes of their own.

    At step ``stop_at`` the main process, and no other, gets a SIGTERM.
    """

    def progress(done: int, _: int) -> None:
        if done == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    source = Source("textures", Pool.open(Path(data) / "pool"), LabelStore.open(Path(data) / "labels"))
    return train(tiny_config(**changes), [source], Path(out), progress=progress)


def train_unfinished(data: str, out: str, changes: dict[str, Any]) -> None:
    """Train as ``train_folder``; of a finished run, repeat the last moments before it was finished.

    A life that finds all work done then costs what starting and finishing cost, and nothing less.
    """
    if (Path(out) / outputs.MANIFEST).exists():
        manifest = outputs.read_manifest(Path(out), "run")
        outputs.write_manifest(Path(out), replace(manifest, complete=False, content={}))
    train_folder(data, out, changes)


if __name__ == "__main__":
    for arguments in json.loads(sys.argv[1]):
        try:
            train_folder(*arguments)
        except PocketiqaError as error:
            print(f"refused: {error}", flush=True)
