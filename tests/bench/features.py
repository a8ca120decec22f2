"""Cached features against a live teacher: bytes and seconds an image, and from how many passes on labelling is cheaper.

Labelling once and reading costs ``label + passes * read`` seconds an image, a live teacher ``passes * live``; cached
features are cheaper from the smallest ``passes`` on for which the first is below the second. Only time is compared: a
live teacher also judges the very crop that the student sees, a cached map is of the whole image.

The tiny teachers label, are read and run live. For the full sizes, stores of their features' shapes are filled with
noise; their seconds an image are not measured here but taken from the variable ``TEACHER_SECONDS``, such as
"dp_iqa-sd15-512=... sam_iqa-vit_b-1024=...", which ``make bench-teachers`` prints. Reading is from the page cache.
"""

import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import torch

from distill.data.examples import Examples, Source
from distill.training.batches import FeatureReader
from pseudo_labels.crops import WHOLE
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.records import PseudoLabel, Status, TeacherStamp
from pseudo_labels.shards import FEATURES, LABELS
from pseudo_labels.store import LabelStore
from teachers.label import label
from tests.bench.matrix_rate import median_s
from tests.bench.photographs import photographs, write_jpegs
from tests.bench.teacher_cases import FULL, TINY, Case, count

IMAGES, BATCH = 256, 8
_READINGS = 2000
_HALF_BYTES = 2


def main() -> None:
    """Measure on one thread."""
    given = _given_seconds(os.environ.get("TEACHER_SECONDS", ""))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jpegs(folder / "photographs", IMAGES, 640, 480)
        pool = build_pool([str(folder / "photographs")], folder / "pool", near_duplicate_distance=0)
        stores = [_tiny(case, pool, folder / case.name) for case in TINY]
        for case in FULL:
            _full(case, pool, stores[0], folder / case.name, given.get(case.name))


def _given_seconds(words: str) -> dict[str, float]:
    known = [case.name for case in FULL]
    try:
        seconds = {name: float(value) for name, value in (word.split("=") for word in words.split())}
    except ValueError:
        sys.exit(f"TEACHER_SECONDS is {words!r}: give name=seconds, separated by spaces; names are {', '.join(known)}")
    unknown = sorted(set(seconds) - set(known))
    if unknown:
        sys.exit(f"TEACHER_SECONDS names {', '.join(unknown)}: choose {', '.join(known)}")
    return seconds


def _tiny(case: Case, pool: Pool, out: Path) -> LabelStore:
    """Label with the teacher, read, run live; prints the three and returns the store."""
    options = {"variant": case.variant, "input_side_px": case.side_px, "pretrained": False}
    started = time.perf_counter()
    # One shard, of the size that a large pool has.
    store = label(pool.folder, case.teacher, out, shards=1, features=True, options=options, batch_size=BATCH)
    label_s = (time.perf_counter() - started) / len(pool)
    print(f"{case.name}: {len(pool)} JPEGs 640x480, labelled at {1000 * label_s:.2f} ms an image, set-up included")
    _print_store(store, pool, label_s, _live_s(case))
    return store


def _live_s(case: Case) -> float:
    """Seconds an image, resizing included, from pixels that are in memory already."""
    teacher = case.build("fp32")
    crops = list(photographs(BATCH, case.side_px, case.side_px))
    run = median_s(lambda: teacher([teacher.preprocess(crop, None) for crop in crops]), torch.device("cpu"))
    return run / BATCH


def _full(case: Case, pool: Pool, like: LabelStore, out: Path, seconds: float | None) -> None:
    """The same for a store of the full size, which noise fills."""
    shapes = count(case).features
    generator = np.random.default_rng(0)
    noise = {name: generator.random((len(pool), *shape), np.float32) for name, shape in shapes.items()}
    spec = replace(like.spec, stamp=TeacherStamp("bench", 1, "none"), features=tuple(shapes))
    store = LabelStore.create(out, spec, pool_path=pool.folder)
    labels = [PseudoLabel(ref.id, ref.uri, ref.sha256, status=Status.OK, score=0.5, confidence=1.0) for ref in pool]
    store.write_shard(0, labels, noise)
    store.finish()
    known = "TEACHER_SECONDS does not say what it takes" if seconds is None else f"{seconds:.4g} s an image, as given"
    print(f"{case.name}: {known}")
    # Beside such a teacher, decoding and writing are hidden or nothing.
    _print_store(store, pool, seconds, seconds)


def _print_store(store: LabelStore, pool: Pool, label_s: float | None, live_s: float | None) -> None:
    row, features = (_file_bytes(store, name) / len(pool) for name in (LABELS, FEATURES))
    disk_gb = 1e5 * (row + features) / 1e9
    print(f"  store: {row:.0f} bytes an image for its score, {features:.0f} for features", end="")
    print(f"; 100,000 images: {disk_gb:.2f} GB")
    for name, (shape, read_s) in _readings(store, pool).items():
        half = _HALF_BYTES * math.prod(shape)
        print(f"  {name} {list(shape)} in fp16: {half} bytes, read in {1000 * read_s:.3f} ms", end="")
        if label_s is None or live_s is None:
            print()
        else:
            print(f", live {1000 * live_s:.4g} ms: {_break_even(label_s, read_s, live_s)}", flush=True)


def _file_bytes(store: LabelStore, name: str) -> int:
    return sum((store.shard_folder(index) / name).stat().st_size for index in range(store.spec.shards))


def _readings(store: LabelStore, pool: Pool) -> Mapping[str, tuple[tuple[int, ...], float]]:
    """Each feature's shape, and the seconds that training waits for one, in random order."""
    source, examples = Source("bench", pool, store), _examples(store, pool)
    order = np.random.default_rng(0).integers(len(examples), size=_READINGS).tolist()
    values_of = {}
    for name in store.spec.features:
        reader = FeatureReader([source], name, examples, seed=0)
        started = time.perf_counter()
        for index in order:
            reader.read(examples, index)
        values_of[name] = (tuple(reader.shape), (time.perf_counter() - started) / _READINGS)
    return values_of


def _examples(store: LabelStore, pool: Pool) -> Examples:
    """Every image of the pool, with the place of its feature in the store's only shard."""
    rows = np.arange(len(pool))
    zeros, ones = np.zeros(len(pool), np.int32), np.ones(len(pool), np.float32)
    scores = store.labels()["score"].to_numpy()
    whole = np.tile(astuple(WHOLE), (len(pool), 1))
    no_list = np.tile(np.array([-1.0, 0.0, 0.0, np.inf], np.float32), (len(pool), 1))
    return Examples(
        zeros, rows, target=scores, weight=ones, flipped=zeros.astype(bool), box=whole, shard=zeros, shard_row=rows,
        levels=no_list,
    )  # fmt: skip


def _break_even(label_s: float, read_s: float, live_s: float) -> str:
    if live_s <= read_s:
        return "reading takes longer than scoring, so the live teacher is always cheaper"
    passes = math.floor(label_s / (live_s - read_s)) + 1
    return f"labelling once and reading is cheaper from {passes} passes over the pool on"


if __name__ == "__main__":
    main()
