"""The files of one shard of a label store: how labels become bytes, and how bytes are trusted again.

A shard folder holds ``labels.parquet`` (one row an image), ``features.safetensors`` (if features are stored: fp16
arrays whose first axis is the row), ``stats.json`` (for people and ``audit``) and ``shard.json``, the marker: the
SHA-256 of each of them. All bytes follow from the labels alone: no time, path of the machine or process number.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import canonical_json, read_json, sha256_bytes, sha256_file
from pseudo_labels.records import PseudoLabel, Status

MARKER = "shard.json"
LABELS = "labels.parquet"
FEATURES = "features.safetensors"
STATS = "stats.json"

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "uri", "sha256", "view", "status", "reason")]
    + [(name, pa.float32()) for name in ("score", "score_std", "confidence")]
)
# The last digit of a score depends on how many images were scored together; stores of earlier versions do not say.
SCHEMA_WITH_BATCH = SCHEMA.append(pa.field("batch", pa.int32()))


@dataclass(frozen=True)
class ShardFault:
    """A committed shard that is not what was written."""

    index: int
    reason: str


def shard_name(index: int) -> str:
    """Folder of a shard inside its store."""
    return f"shard-{index:05d}"


def shard_rows(rows: int, shards: int, index: int) -> range:
    """Positions in the pool of the rows of one shard: contiguous blocks whose sizes differ by at most one."""
    # In whole numbers, so that each block begins exactly where the one before it ends.
    return range(rows * index // shards, rows * (index + 1) // shards)


def shard_of(rows: int, shards: int, row: int) -> int:
    """The shard that a row of the pool lies in, as ``shard_rows`` cuts them."""
    return ((row + 1) * shards - 1) // rows


def labels_table(labels: Sequence[PseudoLabel], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Rows as an Arrow table; a name that is no valid Unicode is kept readable with backslash escapes.

    Args:
        labels: the rows.
        schema: ``SCHEMA`` or ``SCHEMA_WITH_BATCH``.

    Raises:
        PocketiqaError: a score, spread or confidence is out of range, or missing where the status is ``ok``.
    """
    for label in labels:
        _check_label(label)
    columns = {field.name: [_plain(getattr(label, field.name)) for label in labels] for field in schema}
    return pa.table(columns, schema=schema)


def _plain(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _check_label(label: PseudoLabel) -> None:
    scored = label.status == Status.OK
    if scored and not 0.0 <= label.score <= 1.0:
        raise PocketiqaError(f"the score of image {label.id} is {label.score}: it must be in [0, 1]")
    if not scored and not (math.isnan(label.score) and math.isnan(label.score_std) and label.reason):
        raise PocketiqaError(
            f"image {label.id} has status {label.status}, but a score or no reason: "
            "only ok rows are scored, and every other row says why"
        )
    if not (math.isnan(label.score_std) or 0.0 <= label.score_std < math.inf):
        raise PocketiqaError(
            f"the score_std of image {label.id} is {label.score_std}: it must be finite and at least 0"
        )
    if not 0.0 <= label.confidence <= 1.0:
        raise PocketiqaError(f"the confidence of image {label.id} is {label.confidence}: it must be in [0, 1]")


def shard_stats(table: pa.Table) -> dict[str, Any]:
    """Rows per status, and mean, deviation (population), least and greatest of the scores of ``ok`` rows."""
    status = table["status"].to_pylist()
    scores = table["score"].to_numpy().astype(np.float64)[np.array(status, dtype=object) == Status.OK]
    summary = {}
    if scores.size:
        # Six decimals: float32 scores hold no more, and the text stays the same whatever order numpy sums in.
        values = {"mean": scores.mean(), "std": scores.std(), "min": scores.min(), "max": scores.max()}
        summary = {name: round(float(value), 6) for name, value in values.items()}
    return {"rows": len(status), "status": dict(sorted(Counter(status).items())), "score": summary}


def shard_files(
    labels: Sequence[PseudoLabel],
    features: Mapping[str, np.ndarray],
    *,
    index: int,
    spec_digest: str,
    schema: pa.Schema = SCHEMA,
) -> dict[str, bytes]:
    """Every file of a shard, the marker included.

    Args:
        labels: the rows, in the pool's order.
        features: arrays whose first axis is the row; stored as fp16. Rows that are not ``ok`` hold zeros.
        index: index of the shard.
        spec_digest: digest of the store's spec, so that a shard of another store is known.
        schema: see ``labels_table``.

    Raises:
        PocketiqaError: a label or a feature cannot be stored.
    """
    table = labels_table(labels, schema)
    files = {LABELS: parquet_bytes(table), STATS: canonical_json(shard_stats(table))}
    if features:
        scored = np.array([label.status == Status.OK for label in labels], dtype=bool)
        files[FEATURES] = safetensors.numpy.save(
            {name: _half(name, features[name], scored) for name in sorted(features)}
        )
    return with_marker(files, index=index, rows=len(labels), spec_digest=spec_digest)


def with_marker(files: Mapping[str, bytes], *, index: int, rows: int, spec_digest: str) -> dict[str, bytes]:
    """The files of a shard and its marker, which holds their digests.

    Args:
        files: content of each file by name.
        index: index of the shard.
        rows: rows of the pool that the shard is of.
        spec_digest: digest of the store's spec.
    """
    digests = {name: sha256_bytes(data) for name, data in files.items()}
    marker = {"index": index, "rows": rows, "spec": spec_digest, "files": digests}
    return {**files, MARKER: canonical_json(marker)}


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as a Parquet file; equal tables, equal bytes."""
    sink = pa.BufferOutputStream()
    # Settings are spelled out, so that a changed default of pyarrow does not change bytes.
    pq.write_table(
        table, sink, version="2.6", data_page_version="1.0", compression="zstd", compression_level=3,
        use_dictionary=False, row_group_size=1 << 20, write_statistics=True,
    )  # fmt: skip
    return sink.getvalue().to_pybytes()


def _half(name: str, array: np.ndarray, scored: np.ndarray) -> np.ndarray:
    if len(array) != len(scored):
        raise PocketiqaError(f"feature {name!r} has {len(array)} rows, but the shard has {len(scored)}")
    # Without a warning: what overflows becomes infinite, and is refused below with its name.
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(array, dtype=np.float16)
    if not np.isfinite(half[scored]).all():
        raise PocketiqaError(f"feature {name!r} is not finite in fp16 (largest magnitude 65504): scale it down")
    # Zeros and not what the model left: the bytes must follow from the labels alone.
    mask = scored.reshape((-1,) + (1,) * (half.ndim - 1))
    return np.where(mask, half, np.float16(0))


def find_fault(folder: Path, *, index: int, spec_digest: str, rows: int, files: Collection[str]) -> str:
    """Why the shard in ``folder`` cannot be trusted; empty if every byte of ``files`` is as written."""
    try:
        marker = read_json(folder / MARKER, what="shard marker")
        written = (marker["index"], marker["spec"], marker["rows"])
        digests = dict(marker["files"])
    # A corrupt marker can fail in each of these ways. All mean that the shard is labelled again.
    except (PocketiqaError, OSError, KeyError, TypeError, ValueError) as error:
        return f"{MARKER} cannot be read ({type(error).__name__})"
    # Before any large file is read: digests of the files alone would accept a shard that was copied from another place.
    if written != (index, spec_digest, rows):
        return f"{MARKER} belongs to another shard or store"
    if set(digests) != set(files):
        return f"{MARKER} lists {sorted(digests)} instead of {sorted(files)}"
    for name, digest in sorted(digests.items()):
        try:
            changed = sha256_file(folder / name) != digest
        except OSError as error:
            return f"{name} cannot be read ({error.strerror or type(error).__name__})"
        if changed:
            return f"{name} does not match its recorded SHA-256"
    return ""


def read_table(folder: Path, schema: pa.Schema = SCHEMA) -> pa.Table:
    """The labels of a shard without fault, with the columns of ``schema``."""
    return pq.read_table(folder / LABELS, schema=schema, use_threads=False)


def read_features(folder: Path) -> dict[str, np.ndarray]:
    """The features of a shard without fault: name to fp16 [rows, ...]."""
    return safetensors.numpy.load_file(folder / FEATURES)
