import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pseudo_labels.errors import PocketiqaError
from students.export import MAX_HALF_DIFFERENCE
from students.formats.agreement import EightBitLimits
from students.meaning.population import Population, stars_of_model
from students.registry import PARAMETER_LIMITS, student_config
from students.runtime import Scorer
from students.session import OUTPUTS
from students.shipped import ALL_NAMES, DEFAULT, FOLDER, NAMES, QUANTISED, list_models, model_path
from tests.helpers.tiny_students import photographs

MOST_BYTES = 16_000_000
HEADINGS = ("Results", "Cost", "Training data and teachers", "Limits", "How to repeat")


def parameters(path: Path) -> int:
    """Numbers in the graph's constants that are no scalars or shapes: folded weights and biases."""
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8)
    return sum(int(np.prod(one.dims)) for one in onnx.load(path).graph.initializer if one.data_type in kinds)


def card(name: str) -> str:
    """The card's text, without the marks that keep Markdown from reading names."""
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8").replace("\\", "")


@pytest.mark.parametrize("name", NAMES)
def test_each_is_as_small_as_its_name_says_and_scores(name: str):
    assert parameters(model_path(name)) <= PARAMETER_LIMITS[name]
    scorer = Scorer(name)
    assert scorer.contract.name == name
    noise = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    gray = np.full((80, 96, 3), 128, np.uint8)
    assert 0 <= scorer.score(noise).score <= 1
    assert scorer.score(noise).score != scorer.score(gray).score


@pytest.mark.parametrize("name", NAMES)
def test_each_keeps_a_contract_that_fits_its_preset_and_its_graph(name: str):
    contract = Scorer(name).contract
    assert contract.student["backbone"] == student_config(name).backbone
    assert contract.preprocess == student_config(name).preprocess
    # Batch normalisation is folded into the graph's biases, so it holds somewhat fewer numbers.
    assert 0.9 < parameters(model_path(name)) / contract.parameters <= 1
    assert contract.parameters <= PARAMETER_LIMITS[name]
    assert contract.macs > 1e7
    assert contract.scale not in ("", "unknown")
    assert contract.parity is not None
    assert max(contract.parity[part] for part in OUTPUTS) <= contract.parity["limit"] <= MAX_HALF_DIFFERENCE


def test_together_they_are_small():
    assert sum(model_path(name).stat().st_size for name in ALL_NAMES) <= MOST_BYTES


@pytest.mark.parametrize("name", QUANTISED)
def test_each_in_eight_bits_is_made_from_the_float_one_beside_it_and_keeps_the_limits(name: str):
    """Fails after a new float student until ``make int8`` has run."""
    scorer, source = Scorer(name), Scorer(name.removesuffix("-int8"))
    conversion = scorer.contract.conversion
    assert conversion is not None
    assert conversion["source"] == source.digest
    assert scorer.contract.name == name
    assert replace(scorer.contract, conversion=None, name=source.contract.name) == source.contract
    limits, agreement, rated = EightBitLimits(), conversion["agreement"], conversion["rated"]
    assert agreement["srcc"] >= limits.srcc
    assert agreement["mean"] <= limits.mean
    assert rated["images"] > 1000
    assert rated["mean"] <= limits.mean
    assert rated["srcc"] >= rated["srcc_float"] - limits.rated_loss
    # Of what the student is in float32: its own file may hold half of that.
    assert model_path(name).stat().st_size <= 0.4 * 4 * source.contract.parameters
    assert scorer.digest[:12] in card(name)
    assert source.digest[:12] in card(name)


@pytest.mark.parametrize("name", QUANTISED)
def test_each_in_eight_bits_scores_photographs_as_its_float_student(name: str):
    ours, theirs = Scorer(name.removesuffix("-int8")), Scorer(name)
    changes = [theirs.score(photo).score - ours.score(photo).score for photo in photographs()]
    assert 0 < max(map(abs, changes)) < 0.03


@pytest.mark.parametrize("name", NAMES)
def test_each_card_has_what_a_user_must_know(name: str):
    headings = re.findall(r"^## (.+)$", card(name), re.MULTILINE)
    assert [heading for heading in HEADINGS if heading not in headings] == []
    assert f"pocketiqa run biq2021_{name.replace('-', '_')}" in card(name)
    for word in ("licence", "BIQ2021", "teacher"):
        assert word in card(name)
    assert Scorer(name).digest[:12] in card(name)


@pytest.mark.parametrize("name", NAMES)
def test_each_card_is_filled_in_and_agrees_with_the_contract(name: str):
    assert "TODO" not in card(name)
    assert re.search(r"SRCC.*\d\.\d\d\d .*\d\.\d\d\d", card(name))  # with an interval
    contract = Scorer(name).contract
    assert contract.data
    assert contract.teachers
    assert [stamp["name"] for stamp in contract.teachers if stamp["name"] not in card(name)] == []


def test_names_stand_for_files_unless_there_is_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert model_path() == model_path(DEFAULT) == FOLDER / "pocket-m.onnx"
    assert model_path(Path("pocket-s")) == FOLDER / "pocket-s.onnx"
    assert model_path("other.onnx") == Path("other.onnx")
    (tmp_path / "pocket-s").write_bytes(b"a file of the user's own")
    assert model_path("pocket-s") == Path("pocket-s")
    assert Scorer().digest == Scorer("pocket-m").digest
    with pytest.raises(PocketiqaError, match=r"no model at pocket-x: .*\(pocket-m, pocket-s, .*\)"):
        Scorer("pocket-x")
    assert os.listdir(tmp_path) == ["pocket-s"]


@pytest.mark.parametrize("model", [5, b"pocket-m", ["pocket-m"]])
def test_what_is_no_path_of_a_model_is_named(model: Any):
    message = f"^a model is {type(model).__name__}, but the path of an ONNX file or one of pocket-m, .* is needed"
    with pytest.raises(PocketiqaError, match=message):
        Scorer(model)


def test_list_models_gives_each_name_with_the_first_paragraph_of_its_card():
    models = list_models()
    assert tuple(models) == ALL_NAMES
    for name, facts in models.items():
        assert facts in card(name).splitlines()
        assert name in facts
        assert "SRCC" in facts


@pytest.mark.parametrize("name", NAMES)
def test_each_has_its_population_with_stars(name: str):
    """A student that was trained anew needs a new one: ``make populations``."""
    population = Population.load("biq2021", Scorer(name).model)
    assert population.n == sum(population.about["parts"].values()) == 5377
    assert population.stars is not None
    assert population.stars.source == "biq2021"
    # Thresholds give the numbers of stars that people's ratings do: 308 of 5,377 were rated below 0.2.
    assert population.percentile(population.stars.thresholds[0]) == pytest.approx(100 * 308 / 5377, abs=0.5)
    parts = {record["part"]: record for record in population.stars.measured}
    assert parts["biq2021_more ss03"]["n"] == 1256
    assert stars_of_model(Scorer(name).model) == population.stars
