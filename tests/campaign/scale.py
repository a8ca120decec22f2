"""``make scale``: what a pool of a million images costs, step by step, in processor time and memory.

``python -m tests.campaign.scale`` makes pools of growing size, labels them by a teacher that answers at once, audits,
fuses with a second store, and reads the labels as ``distill`` does. Rows have bytes but no picture, so that what a row
costs is measured; up to 100,000 there are pictures besides, for what decoding adds. Each step is a process of its own.
``summary.json`` and ``summary.md`` (the table of ``docs/scale.md``) say what came out; exit status 1 if a row of a
large pool costs a step much more time than one of a small pool, or the step takes more memory than 2 GB. What was
measured is not measured again, unless the code has changed since.
"""

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from distill.commands.doctor import machine
from pseudo_labels.parallel import Progress
from pseudo_labels.records import Status
from students.latency import machine_name
from tests.bench.memory import peak_resident_bytes
from tests.campaign.folders import code_digest, start
from tests.campaign.tiny_pictures import nothing_decoded, write_hashes, write_pictures

ROOT = Path(__file__).parents[2]
ROWS = (10_000, 100_000, 300_000, 1_000_000)
MOST_PICTURES = 100_000
# Images of a shard: one for each batch of work, and a million rows still make no more than 245 of them.
SHARD_ROWS = 4096
MOST_BYTES = 2_000_000_000
# A step is linear if a row costs no more than this many times what it costs in a pool of a tenth to a third of the
# size. Other work of the machine alone changes processor time by a third; a quadratic step triples.
MOST_GROWTH = 1.5
# Below this time it is start-up and chance.
LEAST_S = 5.0
Step = Callable[[Path, int, Progress], None]


def pool(folder: Path, rows: int, progress: Progress) -> None:
    """Read the rows, find duplicates and groups, write the pool."""
    nothing_decoded()
    _pool(folder, "hashes", "pool", rows, progress)


def pool_of_pictures(folder: Path, rows: int, progress: Progress) -> None:
    """The same with pictures that are decoded and fingerprinted."""
    _pool(folder, "pictures", "pool-of-pictures", rows, progress)


def _pool(folder: Path, source: str, name: str, rows: int, progress: Progress) -> None:
    from pseudo_labels.pool import build_pool

    assert len(build_pool([str(folder / f"{source}.parquet")], folder / name, workers=1, progress=progress)) == rows


def label(folder: Path, rows: int, progress: Progress) -> None:
    """Label by a teacher that answers at once."""
    nothing_decoded(importlib.import_module("teachers.reading"))
    _label(folder, "pool", "labels", rows, progress)


def label_pictures(folder: Path, rows: int, progress: Progress) -> None:
    """The same with pictures that are decoded."""
    _label(folder, "pool-of-pictures", "labels-of-pictures", rows, progress)


def _label(folder: Path, pool_name: str, out: str, rows: int, progress: Progress) -> None:
    from teachers.label import label as label_pool

    label_pool(
        folder / pool_name, "tests.campaign.tiny_pictures:brightness", folder / out, shards=-(-rows // SHARD_ROWS),
        batch_size=64, decode_workers=1, progress=progress,
    )  # fmt: skip


def write_second(folder: Path) -> None:
    """The store of a second teacher, which agrees with the first in part; made of its rows, and not measured."""
    from pseudo_labels.records import PseudoLabel, Status, TeacherStamp
    from pseudo_labels.store import LabelStore

    first = LabelStore.open(folder / "labels")
    spec = replace(first.spec, stamp=TeacherStamp("second", 1, "none"), batch_size=None)
    store, draw = LabelStore.create(folder / "second", spec, pool_path=folder / "pool"), np.random.default_rng(0)
    for index in store.missing():
        own = [
            PseudoLabel(**{**row, "status": Status(row["status"]), "batch": 0})
            for row in first.shard_labels(index).to_pylist()
        ]
        noise = draw.normal(0, 0.02, len(own))
        store.write_shard(index, [
            replace(one, score=min(max(one.score + more, 0.0), 1.0)) if one.status == Status.OK else one
            for one, more in zip(own, noise.tolist(), strict=True)
        ])  # fmt: skip
    store.finish()


def audit(folder: Path, rows: int, progress: Progress) -> None:
    """Verify every byte of a store and write its page."""
    from pseudo_labels.audit.page import write_audit_page
    from pseudo_labels.audit.store import audit_store

    report = audit_store(folder / "labels", progress=progress)
    assert report.ok
    assert report.rows == rows
    write_audit_page(report, folder / "audit.html")


def fuse(folder: Path, rows: int, progress: Progress) -> None:
    """Fuse both stores."""
    from pseudo_labels.fusion.fuse import fuse as fuse_stores

    stores = [folder / "labels", folder / "second"]
    assert fuse_stores(stores, folder / "fused", calibrate="quantile", progress=progress).spec.rows == rows


class AllPixels:
    """Stands for the cache of a training's pixels, none of which is missing."""

    statuses: ClassVar[dict[int, tuple[Status, str]]] = {}


def read(folder: Path, rows: int, progress: Progress) -> None:
    """Read labels and split as a training does before its first step."""
    from distill.data.examples import Source, collect
    from distill.data.split import Part, join_groups, split_groups
    from distill.recipe.training import SplitSettings
    from pseudo_labels.files import checksummed_json
    from pseudo_labels.pool import Pool
    from pseudo_labels.store import LabelStore

    own = Pool.open(folder / "pool")
    source = Source("own", own, LabelStore.open(folder / "fused"))
    collected = collect([source], [cast(Any, AllPixels())])
    split = split_groups(join_groups(collected.refs), SplitSettings())
    (folder / "split.json").write_bytes(checksummed_json(split.as_dict()))
    assert len(collected.of(split, Part.TRAIN)) > len(collected.of(split, Part.VALIDATION)) > 0.1 * rows
    progress(rows, rows)


STEPS: dict[str, Step] = {
    "pool": pool, "label": label, "audit": audit, "fuse": fuse, "read": read,
    "pool of pictures": pool_of_pictures, "label pictures": label_pictures,
}  # fmt: skip
OF_PICTURES = ("pool of pictures", "label pictures")


def steps_of(rows: int) -> list[str]:
    """What is measured at a size: decoding costs the same for each picture, so it is measured with few."""
    return [name for name in STEPS if name not in OF_PICTURES or rows <= MOST_PICTURES]


def main() -> int:
    """Measure what is not measured yet; returns the exit status."""
    words = argparse.ArgumentParser(prog="python -m tests.campaign.scale", description=__doc__)
    words.add_argument("--out", type=Path, default=Path("runs/scale"), help="folder for results and pools")
    words.add_argument("--rows", type=int, nargs="*", default=ROWS, help="sizes of the pools, rising")
    words.add_argument("--keep", action="store_true", help="keep the pools of a finished size (1.5 GB for a million)")
    words.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    given = words.parse_args()
    folder: Path = given.out.resolve()
    if given.step:
        return measure(folder, int(given.step[0]), given.step[1])
    start(folder, {"code": code_digest()})
    for rows in given.rows:
        _measure_all(folder, rows)
        if not given.keep:
            shutil.rmtree(folder / str(rows), ignore_errors=True)
    found = summarised(
        [json.loads(_record(folder, rows, name).read_text()) for rows in given.rows for name in steps_of(rows)]
    )
    (folder / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "summary.md").write_text(as_markdown(found))
    print(as_markdown(found))
    print("\n".join(found["not_as_promised"]) or f"as promised: {folder / 'summary.json'}")
    return 1 if found["not_as_promised"] else 0


def _record(folder: Path, rows: int, name: str) -> Path:
    return folder / f"{rows}-{name.replace(' ', '-')}.json"


def _measure_all(folder: Path, rows: int) -> None:
    lacking = [name for name in steps_of(rows) if not _record(folder, rows, name).exists()]
    if lacking and not (folder / str(rows) / "complete").exists():
        # Without its pool a size is begun again; what it measured stays, and is measured again.
        lacking = steps_of(rows)
        (folder / str(rows)).mkdir(parents=True, exist_ok=True)
        write_hashes(folder / str(rows) / "hashes.parquet", rows)
        if rows <= MOST_PICTURES:
            write_pictures(folder / str(rows) / "pictures.parquet", rows)
        (folder / str(rows) / "complete").touch()
    for name in lacking:
        if name == "fuse":
            write_second(folder / str(rows))
        command = [sys.executable, "-m", "tests.campaign.scale", "--out", str(folder), "--step", str(rows), name]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            sys.exit(f"{name} of {rows:,} rows failed, see above; the same command goes on from there")
        one = json.loads(_record(folder, rows, name).read_text())
        print(
            f"{rows:>9,} rows, {name}: {one['cpu_s']:.1f} s of processor, {one['peak_bytes'] / 1e6:.0f} MB", flush=True
        )


def measure(folder: Path, rows: int, name: str) -> int:
    """Run one step in this process and write what it took."""
    said_s = began_s = time.monotonic()
    before_s = time.process_time()

    def progress(done: int, total: int) -> None:
        nonlocal said_s
        if time.monotonic() > said_s + 10:
            said_s = time.monotonic()
            print(f"{rows:>9,} rows, {name}: {done / total:.0%}", file=sys.stderr, flush=True)

    STEPS[name](folder / str(rows), rows, progress)
    made = [path for path in (folder / str(rows)).rglob("*") if path.is_file()]
    record = {
        "rows": rows,
        "step": name,
        "cpu_s": round(time.process_time() - before_s, 2),
        "wall_s": round(time.monotonic() - began_s, 2),
        "peak_bytes": peak_resident_bytes(),
        "files": len(made),
        "bytes": sum(path.stat().st_size for path in made),
        "pool_bytes": (folder / str(rows) / "pool" / "pool.parquet").stat().st_size,
    }
    partial = _record(folder, rows, name).with_suffix(".partial")
    partial.write_text(json.dumps(record))
    os.replace(partial, _record(folder, rows, name))
    return 0


def summarised(records: list[dict[str, Any]]) -> dict[str, Any]:
    """All records, and in words what is not linear or takes too much memory."""
    wrong = [
        f"{one['step']} of {one['rows']:,} rows takes {one['peak_bytes'] / 1e9:.2f} GB"
        for one in records
        if one["peak_bytes"] > MOST_BYTES
    ]
    for name in STEPS:
        own = [one for one in records if one["step"] == name and one["cpu_s"] > LEAST_S]
        for fewer, more in pairwise(own):
            growth = more["cpu_s"] / more["rows"] / (fewer["cpu_s"] / fewer["rows"])
            if growth > MOST_GROWTH:
                wrong.append(f"{name}: a row of {more['rows']:,} costs {growth:.1f} times one of {fewer['rows']:,}")
    about = {"machine": f"{machine_name()}, {machine()['cores']} cores"}
    return about | {"records": records, "not_as_promised": wrong}


def as_markdown(found: dict[str, Any]) -> str:
    """Processor seconds and peak memory of each step and size, and what a row costs in the largest pool."""
    records = found["records"]
    sizes = sorted({one["rows"] for one in records})
    lines = [f"| step | {' | '.join(f'{rows:,}' for rows in sizes)} | a row |", "|---" * (len(sizes) + 2) + "|"]
    for name in dict.fromkeys(one["step"] for one in records):
        own = {one["rows"]: one for one in records if one["step"] == name}
        texts = {rows: f"{one['cpu_s']:.1f} s, {one['peak_bytes'] / 1e6:.0f} MB" for rows, one in own.items()}
        cells = [texts.get(rows, "") for rows in sizes]
        slope = own[max(own)]["cpu_s"] / max(own) * 1e6
        lines.append(f"| {name} | {' | '.join(cells)} | {slope:.0f} µs |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
