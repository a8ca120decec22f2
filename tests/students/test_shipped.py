import os
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from pseudo_labels.errors import PocketiqaError
from students.registry import PARAMETER_LIMITS
from students.runtime import Scorer
from students.shipped import DEFAULT, FOLDER, NAMES, model_path

MOST_BYTES = 12_000_000
HEADINGS = ("Results", "Cost", "Training data and teachers", "Limits", "How to repeat")


def parameters(path: Path) -> int:
    """Numbers in the graph's constants that are no scalars or shapes: folded weights and biases."""
    graph = onnx.load(path).graph
    return sum(int(np.prod(one.dims)) for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_as_small_as_its_name_says_and_scores(name: str):
    assert parameters(model_path(name)) <= PARAMETER_LIMITS[name]
    scorer = Scorer(name)
    assert scorer.contract.name == name
    noise = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    gray = np.full((80, 96, 3), 128, np.uint8)
    assert 0 <= scorer.score(noise).score <= 1
    assert scorer.score(noise).score != scorer.score(gray).score


def test_together_they_are_small():
    assert sum(model_path(name).stat().st_size for name in NAMES) <= MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_card_that_tells_what_a_user_must_know(name: str):
    card = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    found = re.findall(r"^## (.+)$", card, re.MULTILINE)
    assert [heading for heading in HEADINGS if heading not in found] == []
    assert "TODO" not in card
    assert f"pocketiqa run biq2021_{name.replace('-', '_')}" in card
    assert "licence" in card
    assert re.search(r"SRCC.*\d\.\d\d\d .*\d\.\d\d\d", card)  # with an interval
    assert Scorer(name).digest[:12] in card


def test_names_stand_for_files_unless_there_is_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert model_path() == model_path(DEFAULT) == FOLDER / "pocket-m.onnx"
    assert model_path(Path("pocket-s")) == FOLDER / "pocket-s.onnx"
    assert model_path("other.onnx") == Path("other.onnx")
    (tmp_path / "pocket-s").write_bytes(b"a file of the user's own")
    assert model_path("pocket-s") == Path("pocket-s")
    assert Scorer().digest == Scorer("pocket-m").digest
    with pytest.raises(PocketiqaError, match="no model at pocket-x"):
        Scorer("pocket-x")
    assert os.listdir(tmp_path) == ["pocket-s"]
