"""How many images may fail before a run says so loudly, and which shards are worth another try."""

from collections import Counter

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status
from pseudo_labels.store import LabelStore


class FailureLimit:
    """Good images that got no label though one was wanted: how many are too many, and which shards to try again."""

    def __init__(self, pool: Pool, limit: float):
        self._good = [status == Status.OK for status in (ref.status for ref in pool)]
        self._limit = limit

    def _failures(self, store: LabelStore, index: int) -> tuple[int, list[str]]:
        """Number of good images in a shard, and status and reason of those without label."""
        table = store.shard_labels(index)
        found = zip(store.shard_rows(index), table["status"].to_pylist(), table["reason"].to_pylist(), strict=True)
        good = [(status, reason) for row, status, reason in found if self._good[row] and status != Status.SEEN]
        return len(good), [f"{status}: {reason}" for status, reason in good if status != Status.OK]

    def of_shard(self, store: LabelStore, index: int) -> str:
        """Why a valid shard of an unfinished store is to be tried again.

        If too many images of the pool failed, then too many of at least one shard did: those are worth another try,
        once the user has mended the cause.
        """
        if store.manifest.complete:
            return ""
        good, failures = self._failures(store, index)
        return f"{len(failures)} of its {good} images had failed" if len(failures) > self._limit * good else ""

    def check(self, store: LabelStore) -> None:
        """Refuse to finish a store in which too many failed."""
        good, failures = 0, Counter[str]()
        for index in range(store.spec.shards):
            more, found = self._failures(store, index)
            good += more
            failures.update(found)
        if failures.total() > self._limit * good:
            worst = failures.most_common(1)[0][0]
            raise PocketiqaError(
                f"{failures.total()} of {good} images got no label, more than the limit of {self._limit:.0%} "
                f"(most often: {worst}); the others are kept: mend the cause and run the same command again, "
                "or raise the limit"
            )
