"""The pool of a rated benchmark: its images and, where it has them, their clean references.

A scene is what the benchmark calls one, joined with what looks alike (difference hash), so that a split cuts neither.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from distill.data.split import join_groups
from distill.evaluation.benchmarks import Benchmark, BenchmarkRow
from distill.terminal.console import is_main_process
from pseudo_labels import outputs
from pseudo_labels.addresses import of_path
from pseudo_labels.defaults import NEAR_DUPLICATE_DISTANCE
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.images import DEFAULT_LIMITS
from pseudo_labels.measuring import measure_all
from pseudo_labels.parallel import Progress, usable_cores
from pseudo_labels.pool import KIND, Pool, keep_touched, write_pool
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.sources import Entry, Listing, file_stamp

# Decoding a benchmark takes minutes: after an hour, the processes are likely to see different folders.
_WAIT_S, _LOOK_EVERY_S = 3600.0, 0.2


def benchmark_pool(
    benchmark: Benchmark,
    folder: Path,
    spec: dict[str, Any],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Pool:
    """The pool of all rows of a benchmark; the one in ``folder`` is used if nothing has changed.

    Images that cannot be used are rows with their reason. Of several processes the main one makes the pool, and the
    others wait for it.

    Args:
        benchmark: only the rows that are wanted.
        folder: folder of the pool.
        spec: how the rows were chosen, as JSON values.
        overwrite: replace an earlier pool that was made of other images or settings.
        progress: called with images measured and in total.

    Raises:
        PocketiqaError: not one rated image can be used.
        OutputConflictError: ``folder`` holds something else.
    """
    entries = _entries(benchmark)
    stated = [[row.id, row.group, of_path(row.path), row.ref and of_path(row.ref)] for row in benchmark.rows]
    # Names, groups and references; no ratings: a pool is of images, and corrected ratings are new labels of the same
    # pool.
    made_of = {
        **spec,
        "benchmark": benchmark.name,
        "rows": len(benchmark.rows),
        "rows_digest": digest_of(stated),
        "files_digest": Listing((), tuple(entries)).digest,
        "near_distance": NEAR_DUPLICATE_DISTANCE,
        "limits_digest": digest_of(asdict(DEFAULT_LIMITS)),
    }

    # At most once: ``keep_touched`` asks for it only where files look changed, and the rows are written if they are
    # new.
    @cache
    def measure() -> list[ImageRef]:
        return list(measure_all(entries, DEFAULT_LIMITS, NEAR_DUPLICATE_DISTANCE, usable_cores(), progress))

    # The processes may not have formed a group yet, so there may be no barrier to wait at: they look at the folder.
    if not is_main_process():
        _wait_for(folder, made_of)
        return Pool.open(folder)
    with outputs.exclusively(folder):
        touched = keep_touched(folder, made_of, lambda: _joined(benchmark, measure()))
        if not touched and _claim(folder, made_of, overwrite) != outputs.Claim.DONE:
            _write(folder, made_of, benchmark, measure())
    return Pool.open(folder)


def rated_rows(benchmark: Benchmark, refs: Iterable[ImageRef]) -> dict[str, list[BenchmarkRow]]:
    """The rows of each usable image, by its id: several where files have the same bytes.

    Args:
        benchmark: whose rows ``refs`` were measured from.
        refs: the rows of the pool, in order.
    """
    by_uri = {ref.uri: ref for ref in refs}
    rated: dict[str, list[BenchmarkRow]] = {}
    for row in benchmark.rows:
        ref = by_uri[of_path(row.path)]
        # A duplicate has the id of the image that it repeats.
        if ref.status in (Status.OK, Status.DUPLICATE):
            rated.setdefault(ref.id, []).append(row)
    return rated


def _entries(benchmark: Benchmark) -> list[Entry]:
    """Every file once, a reference before the first image that was made of it."""
    files = {of_path(file): file for row in benchmark.rows for file in (row.ref, row.path) if file}
    return [Entry(address, file_stamp(file)) for address, file in files.items()]


def _claim(folder: Path, made_of: dict[str, Any], overwrite: bool) -> outputs.Claim:
    """What is in the folder; the same pool is never made again, for other processes may be reading it."""
    try:
        return outputs.claim(folder, KIND, made_of)
    except OutputConflictError:
        if not overwrite:
            raise
        return outputs.claim(folder, KIND, made_of, overwrite=True)


def _write(folder: Path, made_of: dict[str, Any], benchmark: Benchmark, measured: Sequence[ImageRef]) -> None:
    rated = rated_rows(benchmark, measured)
    if not rated:
        # Nothing is left behind: with the images in place, the same command works.
        outputs.start_over(folder)
        raise PocketiqaError(_nothing_left(benchmark, measured))
    averaged = [[row.id for row in rows] for rows in rated.values() if len(rows) > 1]
    notes = {"benchmark": benchmark.as_dict(), "averaged": averaged}
    # Here, as ``write_pool`` adds notes only to a folder that it claims itself.
    outputs.write_manifest(folder, outputs.Manifest(KIND, made_of, notes=notes))
    write_pool(folder, _joined(benchmark, measured), spec=made_of)


def _nothing_left(benchmark: Benchmark, measured: Sequence[ImageRef]) -> str:
    counts = Counter(ref.status.value for ref in measured if ref.status != Status.OK)
    bad = next(ref for ref in measured if ref.status != Status.OK)
    return (
        f"not one rated image of benchmark {benchmark.name} can be used ({dict(counts)}), such as {bad.uri}: "
        f"{bad.reason}; check the folder that it was unpacked into"
    )


def _wait_for(folder: Path, made_of: dict[str, Any]) -> None:
    """Until the main process has made the pool; should that fail, the launcher ends this process too."""
    # Monotonic: a clock that is set meanwhile changes no waiting time.
    until = time.monotonic() + _WAIT_S
    while not _is_made(folder, made_of):
        if time.monotonic() > until:
            raise PocketiqaError(
                f"the main process has made no pool in {folder} within {_WAIT_S:.0f} s: all processes need this folder"
            )
        time.sleep(_LOOK_EVERY_S)


def _is_made(folder: Path, made_of: dict[str, Any]) -> bool:
    if not (folder / outputs.MANIFEST).is_file():
        return False
    manifest = outputs.read_manifest(folder, KIND)
    return manifest.complete and manifest.spec == made_of


def _joined(benchmark: Benchmark, measured: Sequence[ImageRef]) -> list[ImageRef]:
    """The rows with their references, and with groups that join the benchmark's scenes and what looks alike.

    A group bears the name of the benchmark and of its first scene: the same in every pool that is made of it.
    """
    by_uri = {ref.uri: ref for ref in measured}
    stated: list[ImageRef] = []
    reference_of: dict[str, str] = {}
    for row in benchmark.rows:
        scene = f"{benchmark.name}: {row.group}"
        image = by_uri[of_path(row.path)]
        stated.append(replace(image, group=scene))
        if row.ref:
            reference = by_uri[of_path(row.ref)]
            stated.append(replace(reference, group=scene))
            if reference.id != image.id:  # an undistorted copy is the reference itself
                reference_of.setdefault(image.id, reference.id)
    # Each image with both of its groups, that of its looks and that of the benchmark: chains over either are joined.
    sets = join_groups([*measured, *stated])
    names: dict[str, str] = {}
    # The smallest name of the set: it does not depend on the order of the rows.
    for ref in stated:
        names[sets[ref.id]] = min(ref.group, names.get(sets[ref.id], ref.group))
    return [replace(ref, group=names[sets[ref.id]], ref_id=reference_of.get(ref.id, "")) for ref in measured]
