"""Invented teachers for fusion: a pool without image files, a true quality for each row, and stores that know it."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import spearmanr

from pseudo_labels.files import sha256_bytes
from pseudo_labels.fusion.fuse import fuse
from pseudo_labels.fusion.keep import KeepRule
from pseudo_labels.pool import Pool, write_pool
from pseudo_labels.records import ImageRef, PseudoLabel, Status, TeacherStamp
from pseudo_labels.store import LabelStore, StoreSpec

FloatArray = NDArray[np.float64]
ROWS = 240
BAD = 17  # a row of the pool that no teacher can score


def invented_pool(folder: Path, rows: int = ROWS, scenes: int = 60, salt: str = "") -> Pool:
    """A pool of rows whose files do not exist; row 17 is corrupt."""
    refs = []
    for row in range(rows):
        digest = sha256_bytes(f"{salt}{row}".encode())
        ref = ImageRef(
            digest[:24],
            f"{row}.png",
            sha256=digest,
            dhash="0" * 16,
            bytes=1,
            width=64,
            height=64,
            group=f"scene{row % scenes}",
        )
        if row == BAD:
            ref = ImageRef(digest[:24], f"{row}.png", digest, status=Status.CORRUPT, reason="cut off")
        refs.append(ref)
    return write_pool(folder, refs, spec={"rows": rows, "salt": salt})


def truth(rows: int = ROWS) -> FloatArray:
    """Quality of each row, even over 0.1 to 0.9."""
    return np.random.default_rng(1).uniform(0.1, 0.9, rows)


def seen(noise: float, seed: int, rows: int = ROWS) -> FloatArray:
    """What a teacher makes of the truth: noise, and a scale of its own (a rising curve)."""
    noisy = truth(rows) + np.random.default_rng([2, seed]).normal(0, noise, rows)
    return np.clip(0.2 + 0.6 * np.clip(noisy, 0, 1) ** 2, 0, 1)


def teacher_store(
    folder: Path,
    pool: Pool,
    scores: ArrayLike,
    *,
    name: str,
    spreads: ArrayLike | None = None,
    shards: int = 5,
    features: Mapping[str, np.ndarray] | None = None,
    view: str = "full",
    finish: bool = True,
) -> LabelStore:
    """A store with these scores; NaN becomes a failed row, and bad rows of the pool keep their status."""
    features = features or {}
    values = np.asarray(scores, np.float64)
    own = np.full(len(values), math.nan) if spreads is None else np.asarray(spreads, np.float64)
    stamp = TeacherStamp(name, 1, "none", licence=f"licence of {name}")
    spec = StoreSpec(
        stamp, pool.digest, rows=len(pool), shards=shards, preprocessing={"side": 64}, features=tuple(sorted(features))
    )
    store = LabelStore.create(folder, spec, pool_path=pool.folder)
    labels = [_label(*row, view) for row in zip(pool, values.tolist(), own.tolist(), strict=True)]
    for index in range(shards):
        rows = store.shard_rows(index)
        here = slice(rows.start, rows.stop)
        store.write_shard(index, labels[here], {key: array[here] for key, array in features.items()})
    if finish:
        store.finish()
    return store


def _label(ref: ImageRef, score: float, spread: float, view: str) -> PseudoLabel:
    if ref.status == Status.OK and not math.isnan(score):
        return PseudoLabel(ref.id, ref.uri, ref.sha256, view, score=score, score_std=spread)
    status, reason = (Status.FAILED, "no answer") if ref.status == Status.OK else (ref.status, ref.reason)
    return PseudoLabel(ref.id, ref.uri, sha256=ref.sha256, view=view, status=status, reason=reason, confidence=0.0)


def make_stores(pool: Pool, folder: Path) -> Callable[..., Path]:
    """A function of scores and a name that makes ``folder/name`` and returns it."""
    return lambda scores, name, **options: teacher_store(folder / name, pool, scores, name=name, **options).folder


def rho(first: ArrayLike, second: ArrayLike) -> float:
    """SRCC by scipy."""
    correlation: Any = spearmanr(first, second)
    return float(correlation.statistic)


def ratings_of(pool: Pool, rows: range = range(0, 120), noise: float = 0.02) -> dict[str, float]:
    """Ratings on some rows: the truth, as a panel of people sees it."""
    rated = np.clip(truth(len(pool)) + np.random.default_rng(3).normal(0, noise, len(pool)), 0, 1)
    return {pool[row].id: float(rated[row]) for row in rows}


def fuse_folder(folder: str, out: str) -> None:
    """Fuse ``folder/a`` and ``folder/b`` with everything that fusion can do; for processes that a test starts."""
    pool = Pool.open(Path(folder) / "pool")
    rule = KeepRule(min_confidence=0.3, max_disagreement=0.2, outlier_feature="map", max_outlier=6.0)
    folders = [Path(folder) / "a", Path(folder) / "b"]
    fuse(folders, out, ratings=ratings_of(pool), rule=rule, carry="map")
