"""A pool with what its images are worth: scores, near duplicates, bad files, filters and sampling weights as columns.

``DIR/scores`` is a label store of the student's scores, in shards that resume; ``DIR/curated.parquet`` holds all
columns of the pool's table and those of ``COLUMNS``, row for row. Nothing of the pool is changed.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pseudo_labels import outputs
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import sha256_bytes, write_atomic
from pseudo_labels.images import DecodeLimits, ImageError
from pseudo_labels.parallel import Progress, in_order
from pseudo_labels.pool import TABLE as POOL_TABLE
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, PseudoLabel, Status, TeacherStamp
from pseudo_labels.store import LabelStore, StoreSpec, shard_count
from students.runtime import Scorer, keep_freed_memory, row_of

KIND = "curated"
TABLE = "curated.parquet"
SCORES = "scores"
_SCHEMA = pa.schema(
    [
        ("score", pa.float64()),
        ("percentile", pa.float64()),
        ("near_duplicates", pa.int64()),
        ("near_duplicate_of", pa.string()),
        ("keep", pa.bool_()),
        ("left_out", pa.string()),
        ("weight", pa.float64()),
    ]
)
COLUMNS = tuple(_SCHEMA.names)
"""Added columns: the score, null without one; percent of the pool's scored images that score lower (ties half);
images of the same scene that have a score, itself included; the id of the best of these, empty for the best itself;
whether the filters keep it; why not; and its sampling weight, 0 if it is not kept, 1 on average over those that are."""
WEIGHTS = ("scene", "score")
"""What a sampling weight may follow: ``scene``: all kept images of a scene together weigh as much as one; ``score``."""


@dataclass(frozen=True)
class Filters:
    """Which images are kept, and how often they are drawn.

    Attributes:
        min_score: images that score lower are left out.
        max_score: images that score higher are left out.
        best_of_scene: of near duplicates, only the one that scores highest is kept.
        weights: names of ``WEIGHTS``; several are multiplied.
    """

    min_score: float = 0.0
    max_score: float = 1.0
    best_of_scene: bool = False
    weights: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= self.max_score <= 1:
            raise PocketiqaError(
                f"min_score is {self.min_score:g} and max_score {self.max_score:g}: 0 <= min_score <= max_score <= 1 "
                "is needed"
            )
        unknown = set(self.weights) - set(WEIGHTS)
        if unknown:
            raise PocketiqaError(f"weights by {sorted(unknown)[0]!r} are not known: choose of {', '.join(WEIGHTS)}")


class ScoreStore(LabelStore):
    """The scores of a student, as labels that anything can read which reads label stores."""

    command = "curate"


@dataclass(frozen=True)
class Curated:
    """A finished output folder.

    Attributes:
        folder: the folder.
        manifest: its head; ``content`` has ``rows``, ``kept`` and ``left_out`` (reason to count).
    """

    folder: Path
    manifest: outputs.Manifest

    @classmethod
    def open(cls, folder: Path) -> "Curated":
        """Open what ``curate`` finished.

        Raises:
            PocketiqaError: there is none, or it is unfinished.
        """
        manifest = outputs.read_manifest(folder, KIND)
        if not manifest.complete:
            raise PocketiqaError(f"{folder} is unfinished: run the same curate command again")
        return cls(Path(folder), manifest)

    def table(self) -> pa.Table:
        """All columns of the pool and ``COLUMNS``, in the pool's order."""
        return pq.read_table(self.folder / TABLE, use_threads=False)


def curate(
    pool_folder: Path,
    out: Path,
    scorer: Scorer,
    filters: Filters,
    *,
    limits: DecodeLimits,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> Curated:
    """Score a pool and write its table with what its images are worth; resumes what an earlier call began.

    Args:
        pool_folder: folder of a finished pool.
        out: output folder.
        scorer: student, with the same limits.
        filters: what is kept.
        limits: of decoding.
        workers: images scored at a time.
        overwrite: replace an earlier output; scores of the same pool, model and limits are used again.
        progress: called with rows scored and rows in all.
        warn: called with a sentence on shards that are scored again.

    Raises:
        OutputConflictError: ``out`` holds something else, or was made differently.
        StorageFullError: the disk is full; what was committed stays.
    """
    pool, out = Pool.open(Path(pool_folder)), Path(out)
    if out.resolve() == pool.folder.resolve():
        raise PocketiqaError(f"--out is the pool {out} itself, which is not changed: choose another folder")
    preprocessing = {"decode": {**asdict(limits), "background": list(limits.background)}}
    spec = {
        "pool": pool.digest,
        "model": scorer.model.as_dict(),
        "preprocessing": preprocessing,
        "filters": {**asdict(filters), "weights": list(filters.weights)},
    }
    with outputs.exclusively(out):
        if _claimed(out, spec, overwrite) != outputs.Claim.DONE:
            store = _scored(
                pool, out / SCORES, scorer, preprocessing, workers=workers, overwrite=overwrite, progress=progress,
                warn=warn,
            )  # fmt: skip
            outputs.finish(out, _write_table(pool, out, store, filters))
    return Curated.open(out)


def _claimed(out: Path, spec: dict[str, Any], overwrite: bool) -> outputs.Claim:
    """Claim the folder; an earlier output of the same kind gives way to ``overwrite`` without its scores."""
    try:
        return outputs.claim(out, KIND, spec)
    except OutputConflictError:
        ours = (out / outputs.MANIFEST).is_file() and outputs.read_manifest(out).kind == KIND
        if not overwrite:
            raise
        if not ours:
            return outputs.claim(out, KIND, spec, overwrite=True)
        outputs.write_manifest(out, outputs.Manifest(KIND, spec))
        return outputs.Claim.NEW


def _scored(
    pool: Pool,
    folder: Path,
    scorer: Scorer,
    preprocessing: dict[str, Any],
    *,
    workers: int,
    overwrite: bool,
    progress: Progress | None,
    warn: Callable[[str], None] | None,
) -> ScoreStore:
    contract = scorer.contract
    stamp = TeacherStamp(contract.name, 1, scorer.digest, scale=contract.scale, licence="as its model card states")
    shards = shard_count(folder, LabelStore.kind, len(pool), overwrite=False)
    spec = StoreSpec(stamp, pool.digest, len(pool), shards, preprocessing)
    try:
        ScoreStore.create(folder, spec, pool_path=pool.folder)
    except OutputConflictError:
        if not overwrite:
            raise
        ScoreStore.create(folder, spec, pool_path=pool.folder, overwrite=True)
    store = ScoreStore.open(folder)
    keep_freed_memory()
    done = 0
    for index in range(store.shard_count):
        rows = store.shard_rows(index)
        with store.writing(index):
            if _needs_scoring(store, index, warn):
                labels = []
                refs = (pool[row] for row in rows)
                for label in in_order(lambda ref: _label(pool, scorer, ref), refs, workers if workers > 1 else 0):
                    labels.append(label)
                    if progress:
                        progress(done + len(labels), len(pool))
                store.write_shard(index, labels)
        done += len(rows)
        if progress:
            progress(done, len(pool))
    store.finish()
    return store


def _needs_scoring(store: ScoreStore, index: int, warn: Callable[[str], None] | None) -> bool:
    if index in store.missing():
        return True
    reason = store.fault(index)
    if reason:
        if warn:
            warn(f"shard {index} is scored again: {reason}")
        store.discard(index)
    return bool(reason)


def _label(pool: Pool, scorer: Scorer, ref: ImageRef) -> PseudoLabel:
    bare = PseudoLabel(ref.id, ref.uri, ref.sha256)

    def work(notes: list[str]) -> Any:
        if ref.status != Status.OK:
            raise ImageError(Status(ref.status), ref.reason)
        return scorer.score(pool.read(ref))

    row = row_of(ref.uri, work)
    if row.score is None:
        return replace(bare, status=row.status, reason=row.reason)
    return replace(bare, score=row.score)


def _write_table(pool: Pool, out: Path, store: ScoreStore, filters: Filters) -> dict[str, Any]:
    table = pq.read_table(pool.folder / POOL_TABLE, use_threads=False)
    labels = store.labels()
    columns = curated_columns(
        list(pool),
        np.array([np.nan if one is None else one for one in labels["score"].to_pylist()], np.float64),
        list(zip(labels["status"].to_pylist(), labels["reason"].to_pylist(), strict=True)),
        filters,
    )
    for field in _SCHEMA:
        table = table.append_column(field, pa.array(columns[field.name], field.type))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data = sink.getvalue().to_pybytes()
    write_atomic(out / TABLE, data)
    kept, why = columns["keep"], Counter(words.partition(":")[0] for words in columns["left_out"] if words)
    return {
        "sha256": sha256_bytes(data),
        "rows": len(kept),
        "kept": int(sum(kept)),
        "left_out": dict(sorted(why.items())),
    }


def curated_columns(
    refs: Sequence[ImageRef],
    scores: NDArray[np.float64],
    states: Sequence[tuple[str, str]],
    filters: Filters,
) -> dict[str, list[Any]]:
    """The added columns.

    Args:
        refs: rows of the pool, [N].
        scores: [N] in [0, 1]; NaN where there is none.
        states: status and reason of each score.
        filters: what is kept.

    Returns:
        [N] values for each of ``COLUMNS``.
    """
    scored = ~np.isnan(scores)
    best, size = _best_of_groups(refs, scores)
    left_out = []
    for ref, score, (status, reason), first in zip(refs, scores.tolist(), states, best, strict=True):
        left_out.append(_why(ref, score, status=status, reason=reason, best=first, filters=filters))
    keep = np.array([not words for words in left_out], bool)
    return {
        "score": [score if is_scored else None for score, is_scored in zip(scores.tolist(), scored, strict=True)],
        "percentile": _percentiles(scores),
        "near_duplicates": size,
        "near_duplicate_of": ["" if first == ref.id else first for ref, first in zip(refs, best, strict=True)],
        "keep": keep.tolist(),
        "left_out": left_out,
        "weight": _weights(refs, scores, keep, filters.weights).tolist(),
    }


def _why(ref: ImageRef, score: float, *, status: str, reason: str, best: str, filters: Filters) -> str:
    """Why a row is not kept; empty if it is. The words before the colon name the kind."""
    if status != Status.OK:
        return f"{status}: {reason}"
    if score < filters.min_score:
        return f"low score: {score:.4f} is below {filters.min_score:g}"
    if score > filters.max_score:
        return f"high score: {score:.4f} is above {filters.max_score:g}"
    if filters.best_of_scene and best != ref.id:
        return f"near duplicate: of {best}, which scores higher"
    return ""


def _best_of_groups(refs: Sequence[ImageRef], scores: NDArray[np.float64]) -> tuple[list[str], list[int]]:
    """For each row the id of the best-scored image of its scene, itself without a score; and how many are scored."""
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for at, ref in enumerate(refs):
        if not np.isnan(scores[at]):
            rows[ref.group].append(at)
    # The first of equal ones: the order of the pool decides, and never chance.
    best = {group: max(own, key=lambda at: (scores[at], -at)) for group, own in rows.items()}
    alone = np.isnan(scores)
    ids = [ref.id if alone[at] else refs[best[ref.group]].id for at, ref in enumerate(refs)]
    return ids, [0 if alone[at] else len(rows[ref.group]) for at, ref in enumerate(refs)]


def _percentiles(scores: NDArray[np.float64]) -> list[float | None]:
    ordered = np.sort(scores[~np.isnan(scores)])
    below, up_to = (np.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    values = 100 * (below + up_to) / 2 / max(len(ordered), 1)
    return [None if np.isnan(score) else round(value, 4) for score, value in zip(scores, values.tolist(), strict=True)]


def _weights(
    refs: Sequence[ImageRef], scores: NDArray[np.float64], keep: NDArray[np.bool_], names: Sequence[str]
) -> NDArray[np.float64]:
    weights = keep.astype(np.float64)
    if "score" in names:
        weights *= np.where(keep, scores, 0.0)
    if "scene" in names:
        totals: Mapping[str, int] = Counter(ref.group for ref, kept in zip(refs, keep, strict=True) if kept)
        weights /= [max(totals.get(ref.group, 0), 1) for ref in refs]
    total = weights.sum()
    return weights * (keep.sum() / total) if total > 0 else weights


def curated_summary(curated: Curated) -> Iterator[str]:
    """The result in a few lines."""
    content = curated.manifest.content
    yield f"{curated.folder / TABLE}: {content['kept']} of {content['rows']} images kept"
    for why, count in content["left_out"].items():
        yield f"  {count} left out: {why}"
