"""Scores that were made already: one small file for each model, test and photograph, so that none is made twice."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pseudo_labels import outputs
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import checksummed_json, explain_write_errors, read_record, write_atomic

KIND = "trust scores"
FORMAT = 1
# 64 bits: a folder holds thousands of names, not billions.
_DIGITS = 16


class ScoreStore:
    """A folder of scores; ``opened`` claims it."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator["ScoreStore"]:
        """Hold a folder of scores, a new one if there is none.

        Raises:
            OutputConflictError: it holds something else, or another process works in it.
            WriteError: it cannot be written.
        """
        with outputs.exclusively(folder):
            outputs.claim(folder, KIND, {"format": FORMAT})
            yield cls(folder)

    def read(self, key: Sequence[str], labels: Sequence[str]) -> dict[str, float] | None:
        """Scores by label; None if they were not made yet, or not all of them.

        Args:
            key: digests of model, test and photograph.
            labels: what is asked for.

        Raises:
            IntegrityError: the file was altered.
        """
        path = self._path(key)
        if not path.exists():
            return None
        record = read_record(path, what="scores", remedy="remove it, and it is made again")
        # Digests are cut in the name: the whole of them says whether the file is the right one.
        if not isinstance(record, dict) or record.get("key") != list(key) or record.get("format") != FORMAT:
            return None
        scores = record["scores"]
        return {label: float(scores[label]) for label in labels} if set(labels) <= set(scores) else None

    def write(self, key: Sequence[str], scores: Mapping[str, float]) -> None:
        """Store the scores of one model, test and photograph.

        Raises:
            StorageFullError: the disk is full; earlier scores are kept.
        """
        path = self._path(key)
        with explain_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, checksummed_json({"format": FORMAT, "key": list(key), "scores": dict(scores)}))

    def _path(self, key: Sequence[str]) -> Path:
        if len(key) != 3:
            raise PocketiqaError(f"scores are stored by model, test and photograph, not by {list(key)}")
        model, test, photograph = (part[:_DIGITS] for part in key)
        return self.folder / model / test / f"{photograph}.json"
