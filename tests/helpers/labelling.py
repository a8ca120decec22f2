"""Labelling as a whole, for processes that a test starts: importable, and with arguments that JSON can carry."""

from pathlib import Path

from teachers.label import label


def label_folder(pool: str, out: str, teacher: str = "reference", shards: int = 6) -> None:
    """Label a pool on the CPU, in small batches."""
    label(pool, teacher, out, shards=shards, batch_size=2, device="cpu", features=True)


def shard_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of every shard of a store, and nothing else that may lie there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("shard-*/*"))}
