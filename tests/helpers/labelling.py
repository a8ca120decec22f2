"""Labelling as a whole, for processes that a test starts: importable, and with arguments that JSON can carry."""

from pathlib import Path

from teachers.label import label


def label_folder(pool: str, out: str, teacher: str = "reference", shards: int = 6) -> None:
    """Label a pool on the CPU, in small batches."""
    label(pool, teacher, out, shards=shards, batch_size=2, device="cpu", features=True)


def written(folder: Path) -> dict[Path, tuple[int, int]]:
    """What tells that an entry of a folder was written since: its file and time; reading it changes neither."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def shard_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of every shard of a store, and nothing else that may lie there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("shard-*/*"))}
