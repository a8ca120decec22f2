"""Stores that the tests of the audit look at: one of an invented teacher, and three teachers to fuse."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from pseudo_labels.fusion.keep import KeepRule
from pseudo_labels.pool import Pool
from pseudo_labels.records import PseudoLabel, Status, TeacherStamp
from pseudo_labels.store import LabelStore, StoreSpec

STAMP = TeacherStamp("invented", 1, "none", {"side": 96}, scale="0 worst, 1 best <b>")
SHARDS = 8


def honest(pool: Pool) -> list[float]:
    """Scores that fall with the level, a little differently for each image."""
    return [1.0 - ref.level / 6 - 0.001 * (row % 7) for row, ref in enumerate(pool)]


def store_of(pool: Pool, folder: Path, scores: list[float], *, finish: bool = True) -> LabelStore:
    """A store with these scores; NaN becomes a failed row. The spread is a tenth of the distance from 1."""
    spec = StoreSpec(STAMP, pool.digest, len(pool), SHARDS)
    store = LabelStore.create(folder, spec, pool_path=pool.folder)
    labels = []
    for ref, score in zip(pool, scores, strict=True):
        label = PseudoLabel(ref.id, ref.uri, ref.sha256, score=score, score_std=(1 - score) / 10)
        if math.isnan(score):
            label = replace(label, status=Status.FAILED, reason="no <answer>", confidence=0.0)
        labels.append(label)
    for index in range(SHARDS):
        rows = store.shard_rows(index)
        store.write_shard(index, labels[rows.start : rows.stop])
    if finish:
        store.finish()
    return store


TRUTH = np.random.default_rng(0).uniform(0.1, 0.9, 48)
NOISE = {"blue": 0.03, "green <b>": 0.05, "red": 0.1}
RULE = KeepRule(max_disagreement=0.1)


def scores_of(name: str) -> np.ndarray:
    generator = np.random.default_rng(len(name))
    scores = np.clip(TRUTH + generator.normal(0, NOISE[name], len(TRUTH)), 0, 1)
    if name == "blue":
        scores[:3] = 1 - np.round(TRUTH[:3])  # contradicts the others
    if name == "red":
        scores[40:44] = np.nan
    return scores
