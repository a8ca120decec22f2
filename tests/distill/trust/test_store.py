import json
from pathlib import Path

import pytest

from distill.trust.store import ScoreStore
from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError

KEY = ("a" * 64, "b" * 64, "c" * 64)


def test_scores_are_read_again_and_no_others(tmp_path: Path):
    with ScoreStore.opened(tmp_path / "scores") as store:
        assert store.read(KEY, ["clean"]) is None
        store.write(KEY, {"clean": 0.1 + 0.2, "jpeg 1": 0.0})
    with ScoreStore.opened(tmp_path / "scores") as store:
        assert store.read(KEY, ["jpeg 1", "clean"]) == {"jpeg 1": 0.0, "clean": 0.1 + 0.2}
        assert store.read(KEY, ["clean", "jpeg 9"]) is None  # of an earlier version, which had fewer
        # Names of files are cut digests: the whole decides.
        assert store.read(("a" * 16 + "x" * 48, *KEY[1:]), ["clean"]) is None
        with pytest.raises(PocketiqaError, match="by model, test and photograph"):
            store.read(KEY[:2], ["clean"])


def test_an_altered_file_and_a_foreign_folder_are_refused(tmp_path: Path):
    with ScoreStore.opened(tmp_path / "scores") as store:
        store.write(KEY, {"clean": 0.5})
        (path,) = (tmp_path / "scores").rglob("cccc*.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"scores": {"clean": 0.9}}))
        with pytest.raises(IntegrityError, match="remove it"):
            store.read(KEY, ["clean"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    with pytest.raises(OutputConflictError, match="not empty"), ScoreStore.opened(tmp_path / "mine"):
        pass
