"""A pool with what its images are worth: scores, near duplicates, bad files, filters and sampling weights as columns.

``DIR/scores`` is a label store of the student's scores, in shards that resume, with what is wrong as its features where
the student tells it; ``DIR/curated.parquet`` holds all columns of the pool's table and those of ``COLUMNS`` and
``TYPE_COLUMNS``, row for row. Nothing of the pool is changed.
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
from students.damage import NONE, TYPES, Damage
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
_TYPE_SCHEMA = pa.schema([("type", pa.string()), ("strength", pa.float64())])
TYPE_COLUMNS = tuple(_TYPE_SCHEMA.names)
"""Added behind these where the student tells what is wrong: one of ``students.damage.TYPES``, and how strong it is, in
[0, 1]; null without a score."""
_DAMAGE = "damage"
_Wrong = tuple[str, float] | None
"""Type and strength of the main damage of an image; None where it is not known."""
WEIGHTS = ("scene", "score")
"""What a sampling weight may follow: ``scene``: all kept images of a scene together weigh as much as one; ``score``."""


@dataclass(frozen=True)
class Filters:
    """Which images are kept, and how often they are drawn.

    Attributes:
        min_score: images that score lower are left out.
        max_score: images that score higher are left out.
        best_of_scene: of near duplicates, only the one that scores highest is kept; of those that no other filter
            leaves out.
        weights: names of ``WEIGHTS``; several are multiplied.
        without_types: images that have such a main damage are left out, see ``students.damage.TYPES``.
        max_strength: images that are damaged more strongly are left out; with ``without_types`` only of these types,
            whose weaker ones are then kept. In [0, 1].
    """

    min_score: float = 0.0
    max_score: float = 1.0
    best_of_scene: bool = False
    weights: tuple[str, ...] = ()
    without_types: tuple[str, ...] = ()
    max_strength: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= self.max_score <= 1:
            raise PocketiqaError(
                f"min_score is {self.min_score:g} and max_score {self.max_score:g}: 0 <= min_score <= max_score <= 1 "
                "is needed"
            )
        unknown = set(self.weights) - set(WEIGHTS)
        if unknown:
            raise PocketiqaError(f"weights by {sorted(unknown)[0]!r} are not known: choose of {', '.join(WEIGHTS)}")
        for name in self.without_types:
            if name not in TYPES:
                raise PocketiqaError(f"there is no type {name!r} of damage: choose of {', '.join(TYPES)}")
        if self.max_strength is not None and not 0 <= self.max_strength <= 1:
            raise PocketiqaError(f"max_strength is {self.max_strength:g}, but a number from 0 to 1 is needed")
        if self.max_strength is not None and NONE in self.without_types:
            raise PocketiqaError(f"the type {NONE!r} has no strength: name it without --max-strength, or other types")

    @property
    def by_damage(self) -> bool:
        """Whether they ask what is wrong with an image."""
        return bool(self.without_types) or self.max_strength is not None

    def refuses(self, wrong: tuple[str, float]) -> bool:
        """Whether an image of this type and strength of damage is left out."""
        name, strength = wrong
        if not self.by_damage or (self.without_types and name not in self.without_types):
            return False
        return self.max_strength is None or strength > self.max_strength


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
        """All columns of the pool, ``COLUMNS``, and ``TYPE_COLUMNS`` where they are known; in the pool's order."""
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
        PocketiqaError: filters by damage, but a student that does not tell it.
        OutputConflictError: ``out`` holds something else, or was made differently.
        StorageFullError: the disk is full; what was committed stays.
    """
    if filters.by_damage and scorer.contract.types is None:
        raise PocketiqaError(
            f"{scorer.contract.name} has no head on types, so it cannot be filtered by them: leave out --without-type "
            "and --max-strength, or add a head with `pocketiqa fit-types`"
        )
    pool, out = Pool.open(Path(pool_folder)), Path(out)
    if out.resolve() == pool.folder.resolve():
        raise PocketiqaError(f"--out is the pool {out} itself, which is not changed: choose another folder")
    preprocessing: dict[str, Any] = {"decode": {**asdict(limits), "background": list(limits.background)}}
    if scorer.contract.types is not None:
        # The features say a type by its place among these.
        preprocessing["types"] = list(TYPES)
    spec = {
        "pool": pool.digest,
        "model": scorer.model.as_dict(),
        "preprocessing": preprocessing,
        "filters": asdict(filters) | {"weights": list(filters.weights), "without_types": list(filters.without_types)},
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
    features = () if contract.types is None else (_DAMAGE,)
    spec = StoreSpec(stamp, pool.digest, len(pool), shards, preprocessing, features=features)
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
                labels, damages = list[PseudoLabel](), list[Damage | None]()
                refs = pool.rows(rows)
                for label, damage in in_order(
                    lambda ref: _label(pool, scorer, ref), refs, workers if workers > 1 else 0
                ):
                    labels.append(label)
                    damages.append(damage)
                    if progress:
                        progress(done + len(labels), len(pool))
                store.write_shard(index, labels, {_DAMAGE: _as_feature(damages)} if features else None)
        done += len(rows)
        if progress:
            progress(done, len(pool))
    store.finish()
    return store


def _needs_scoring(store: ScoreStore, index: int, warn: Callable[[str], None] | None) -> bool:
    if not store.has(index):
        return True
    reason = store.fault(index)
    if reason:
        if warn:
            warn(f"shard {index} is scored again: {reason}")
        store.discard(index)
    return bool(reason)


def _label(pool: Pool, scorer: Scorer, ref: ImageRef) -> tuple[PseudoLabel, Damage | None]:
    bare = PseudoLabel(ref.id, ref.uri, ref.sha256)

    def work(notes: list[str]) -> Any:
        if ref.status != Status.OK:
            raise ImageError(Status(ref.status), ref.reason)
        return scorer.score(pool.read(ref))

    row = row_of(ref.uri, work)
    if row.score is None:
        return replace(bare, status=row.status, reason=row.reason), None
    return replace(bare, score=row.score), row.damage


def _as_feature(damages: Sequence[Damage | None]) -> NDArray[np.float32]:
    """[N, 2]: place of the type in ``TYPES``, and strength; zeros without one."""
    rows = [(0.0, 0.0) if one is None else (TYPES.index(one.type), one.strength) for one in damages]
    return np.array(rows, np.float32).reshape(-1, 2)


def _damages(store: ScoreStore) -> list[tuple[str, float]] | None:
    """Type and strength of every row, as ``_as_feature`` stored them; None where the student does not tell it."""
    if _DAMAGE not in store.spec.features:
        return None
    rows = np.concatenate([store.shard_features(index)[_DAMAGE] for index in range(store.shard_count)])
    # Half-precision numbers have three digits behind the point; more would not be true.
    return [(TYPES[int(number)], round(float(strength), 3)) for number, strength in rows]


def _write_table(pool: Pool, out: Path, store: ScoreStore, filters: Filters) -> dict[str, Any]:
    table = pq.read_table(pool.folder / POOL_TABLE, use_threads=False)
    labels = store.labels()
    columns = curated_columns(
        list(pool),
        np.array([np.nan if one is None else one for one in labels["score"].to_pylist()], np.float64),
        list(zip(labels["status"].to_pylist(), labels["reason"].to_pylist(), strict=True)),
        filters,
        damages=_damages(store),
    )
    for field in (one for schema in (_SCHEMA, _TYPE_SCHEMA) for one in schema if one.name in columns):
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
    *,
    damages: Sequence[tuple[str, float]] | None = None,
) -> dict[str, list[Any]]:
    """The added columns.

    Args:
        refs: rows of the pool, [N].
        scores: [N] in [0, 1]; NaN where there is none.
        states: status and reason of each score.
        filters: what is kept.
        damages: [N] type and strength, of any values where there is no score; None if they are not known.

    Returns:
        [N] values for each of ``COLUMNS``, and of ``TYPE_COLUMNS`` where they are known.
    """
    scored = ~np.isnan(scores)
    wrong: list[_Wrong] = [
        damages[at] if damages is not None and is_scored else None for at, is_scored in enumerate(scored)
    ]
    left_out = [
        _why(score, status=status, reason=reason, wrong=one, filters=filters)
        for score, (status, reason), one in zip(scores.tolist(), states, wrong, strict=True)
    ]
    best, size = _best_of_groups(refs, scores, [not words for words in left_out])
    if filters.best_of_scene:
        for at, (ref, first) in enumerate(zip(refs, best, strict=True)):
            if not left_out[at] and first != ref.id:
                left_out[at] = f"near duplicate: of {first}, which scores higher"
    keep = np.array([not words for words in left_out], bool)
    columns: dict[str, list[Any]] = {
        "score": [score if is_scored else None for score, is_scored in zip(scores.tolist(), scored, strict=True)],
        "percentile": _percentiles(scores),
        "near_duplicates": size,
        "near_duplicate_of": ["" if first == ref.id else first for ref, first in zip(refs, best, strict=True)],
        "keep": keep.tolist(),
        "left_out": left_out,
        "weight": _weights(refs, scores, keep, filters.weights).tolist(),
    }
    if damages is not None:
        columns |= {name: [None if one is None else one[at] for one in wrong] for at, name in enumerate(TYPE_COLUMNS)}
    return columns


def _why(score: float, *, status: str, reason: str, wrong: _Wrong, filters: Filters) -> str:
    """Why a row is not kept by itself; empty if it is. The words before the colon name the kind."""
    if status != Status.OK:
        return f"{status}: {reason}"
    if score < filters.min_score:
        return f"low score: {score:.4f} is below {filters.min_score:g}"
    if score > filters.max_score:
        return f"high score: {score:.4f} is above {filters.max_score:g}"
    if wrong is not None and filters.refuses(wrong):
        return f"{wrong[0]}: of strength {wrong[1]:g}"
    return ""


def _best_of_groups(
    refs: Sequence[ImageRef], scores: NDArray[np.float64], good: Sequence[bool]
) -> tuple[list[str], list[int]]:
    """For each row the id of the best of its scene, itself without a score; and how many of the scene are scored.

    Best is the one that scores highest: of those that are ``good``, or of all where none is.
    """
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for at, ref in enumerate(refs):
        if not np.isnan(scores[at]):
            rows[ref.group].append(at)
    # The first of equal ones: the order of the pool decides, and never chance.
    best = {group: max(own, key=lambda at: (good[at], scores[at], -at)) for group, own in rows.items()}
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
