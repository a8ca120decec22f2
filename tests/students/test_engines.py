import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudo_labels.errors import IntegrityError, PocketiqaError
from students import engines
from students.engines import ENGINES, OPENVINO, OpenVinoSession, check_engine, check_scores
from students.formats.convert import read_float
from students.formats.sealing import seal
from students.formats.weights8 import store_in_eight_bits
from students.runtime import Scorer
from students.session import OUTPUTS, start_session
from students.shipped import ALL_NAMES, model_path


def test_engines_that_are_unknown_or_missing_are_refused(monkeypatch: pytest.MonkeyPatch):
    assert check_engine(ENGINES[0]) == Scorer("pocket-s").engine == "onnxruntime"
    with pytest.raises(PocketiqaError, match="engine 'tensorrt' is not known: choose one of onnxruntime, openvino"):
        Scorer(engine="tensorrt")
    monkeypatch.setattr(engines, "find_spec", lambda module: None)
    with pytest.raises(PocketiqaError, match=r"openvino is not installed: pip install 'pocketiqa\[openvino\]'"):
        Scorer(engine=OPENVINO)


@pytest.fixture(scope="module")
def openvino_installed() -> None:
    pytest.importorskip("openvino", reason="OpenVINO is an extra: pip install 'pocketiqa[openvino]'")


class Shifted:
    """An engine whose scores are off."""

    def __init__(self, by: float):
        self.by = by

    def run(self, output_names: Sequence[str], input_feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert output_names == ["score"]
        return [input_feed["rgb"].mean((1, 2, 3), dtype=np.float64) / 255 + self.by]


def test_an_engine_that_computes_a_model_wrongly_is_refused():
    settings: dict[str, Any] = {"feed": "rgb", "output": "score", "limit": 1e-4}
    check_scores("other", Shifted(5e-5), Shifted(0), **settings)
    for by in (0.35, -0.35, float("nan")):
        with pytest.raises(PocketiqaError, match=r"other computes this model wrongly: .* take the engine onnxruntime"):
            check_scores("other", Shifted(by), Shifted(0), **settings)


@pytest.mark.usefixtures("openvino_installed")
def test_weights_in_eight_bits_are_computed_rightly_by_openvino_in_several_threads(
    tmp_path: Path, photo_files: list[Path]
):
    """With two streams of OpenVINO 2026.4.1, scores of such files were 0.35 too high."""
    path, source = tmp_path / "w8.onnx", read_float(model_path("pocket-s"))
    path.write_bytes(seal(store_in_eight_bits(source.graph), source.contract, "w8")[0])
    ours = [row.score for row in Scorer(path).score_many(photo_files)]
    theirs = [row.score for row in Scorer(path, engine=OPENVINO).score_many(photo_files, workers=3)]
    np.testing.assert_allclose(np.array(theirs, float), np.array(ours, float), atol=1e-4)


@pytest.mark.usefixtures("openvino_installed")
@pytest.mark.parametrize("name", [name for name in ALL_NAMES if "int8" not in name])
def test_openvino_scores_shipped_students_as_onnx_runtime_does(name: str, photo_files: list[Path]):
    ours, theirs = Scorer(name), Scorer(name, engine=OPENVINO)
    assert (theirs.engine, theirs.digest, theirs.contract) == (OPENVINO, ours.digest, ours.contract)
    for path in photo_files:
        first, second = ours.score(path), theirs.score(path)
        assert abs(first.score - second.score) <= 1e-4
        np.testing.assert_allclose(second.quality_map, first.quality_map, atol=1e-3)


@pytest.mark.usefixtures("openvino_installed")
def test_sizes_batches_and_threads_may_change_from_run_to_run(tiny_onnx: Path):
    data = tiny_onnx.read_bytes()
    ours, theirs = start_session(data, 1, "tiny"), OpenVinoSession(data, 1, "tiny")
    rng = np.random.default_rng(0)
    sizes = [(1, 64, 64), (3, 65, 97), (2, 127, 71), (1, 128, 128)] * 4
    batches = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda batch: theirs.run(OUTPUTS, {"rgb": batch}), batches))
    for batch, result in zip(batches, results, strict=True):
        for first, second in zip(ours.run(list(OUTPUTS), {"rgb": batch}), result, strict=True):
            np.testing.assert_allclose(second, np.asarray(first), atol=1e-4)


@pytest.mark.usefixtures("openvino_installed")
def test_a_scorer_keeps_its_engine_when_it_travels(tiny_onnx: Path, photo_files: list[Path]):
    scorer = Scorer(tiny_onnx, engine=OPENVINO)
    copy = pickle.loads(pickle.dumps(scorer))
    assert copy.engine == OPENVINO
    assert copy.score(photo_files[0]).score == scorer.score(photo_files[0]).score


@pytest.mark.usefixtures("openvino_installed")
def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(IntegrityError, match="mine is not a model that OpenVINO can load"):
        OpenVinoSession(b"no model", 1, "mine")
