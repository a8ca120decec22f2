from pathlib import Path

import numpy as np
import pytest

from distill.evaluation.predictions import Predictor
from distill.trust.definitions import VIEWS
from distill.trust.measure import measure, photograph_files
from distill.trust.models import Model
from distill.trust.pictures import LABELS
from distill.trust.store import ScoreStore
from pseudo_labels.errors import PocketiqaError
from tests.helpers.pools import write_photographs


def model(value: float) -> Model:
    return Model(
        f"always {value}", "given", f"{value:064.2f}", "teacher", Predictor("always", {}, lambda rgb, _: value)
    )


def test_photographs_that_cannot_be_used_are_left_out_with_the_reason(tmp_path: Path):
    paths = write_photographs(tmp_path / "photographs", images=2, max_side=96)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    said: list[str] = []
    files = photograph_files([tmp_path / "gone.png", tmp_path / "bad.png", *paths, paths[0]], said.append)
    assert [file.path.name for file in files] == ["bad.png", *(path.name for path in paths)]
    assert "gone.png cannot be used (missing)" in said[0]
    assert "left out" in said[1]
    seen: list[tuple[int, int]] = []
    with ScoreStore.opened(tmp_path / "scores") as store:
        made = measure([model(0.5)], files, [VIEWS], store, progress=lambda *now: seen.append(now), warn=said.append)
        assert "bad.png cannot be used (not_an_image)" in said[2]
        assert [file.path for file in made.photographs] == paths
        assert made.scores["always 0.5", VIEWS].tolist() == [[0.5] * len(LABELS[VIEWS])] * 2
        assert seen == [(2, 3), (3, 3)]
        with pytest.raises(PocketiqaError, match="no photograph can be used"):
            measure([model(0.5)], files[:1], [VIEWS], store, progress=lambda *now: None, warn=said.append)
        # A model that fails ends the work: it is not the photograph's fault.
        with pytest.raises(PocketiqaError, match="always nan gave no finite score of a picture of"):
            measure([model(float("nan"))], files, [VIEWS], store, progress=lambda *now: None, warn=said.append)
    with pytest.raises(PocketiqaError, match="there are no photographs"):
        photograph_files([tmp_path / "gone.png"], said.append)


def test_a_model_that_refuses_a_picture_is_named():
    def refuse(rgb: np.ndarray, reference: np.ndarray | None) -> float:
        raise PocketiqaError("too wide for me")

    refusing = Model("narrow", "given", "0" * 64, "teacher", Predictor("narrow", {}, refuse))
    with pytest.raises(PocketiqaError, match="narrow cannot score a picture of 9x8 pixels: too wide for me"):
        refusing.score(np.zeros((8, 9, 3), np.uint8))
