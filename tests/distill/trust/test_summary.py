"""Figures of models whose scores are known."""

from pathlib import Path

import numpy as np
import pytest

from distill.evaluation.predictions import Predictor
from distill.trust.definitions import CATALOGUE, REFERENCE_METRICS, VIEWS, WATERLOO
from distill.trust.measure import Measured
from distill.trust.models import Model
from distill.trust.pictures import CLEAN, LABELS, PhotographFile
from distill.trust.summary import gmad_of, mean_auroc, summarise

PHOTOGRAPHS = 6


def model(name: str) -> Model:
    return Model(name, name, name * 8, "teacher", Predictor(name, {"stamp": {"name": name}}, lambda rgb, _: 0.0))


def falling(label: str) -> float:
    """The score of one who knows the strength of every copy."""
    return 0.92 if label == CLEAN or label.startswith(("crop", "side")) else 0.8 - 0.11 * int(label.split()[1])


def scores_of(test: str) -> np.ndarray:
    return np.array([[falling(label) for label in LABELS[test]]] * PHOTOGRAPHS)


@pytest.fixture(scope="module")
def measured() -> Measured:
    tests = (WATERLOO, CATALOGUE, VIEWS)
    scores = {("knowing", test): scores_of(test) for test in tests}
    scores |= {("fooled", test): 1 - scores_of(test) for test in tests}
    metrics = np.repeat(scores_of(WATERLOO)[..., None], len(REFERENCE_METRICS), axis=2)
    files = tuple(PhotographFile(Path(f"{at}.png"), str(at)) for at in range(PHOTOGRAPHS))
    return Measured(files, scores, metrics)


def test_one_that_knows_and_one_that_is_fooled(measured: Measured):
    result = summarise([model("knowing"), model("fooled")], measured, [WATERLOO, CATALOGUE, VIEWS])
    knowing, fooled = result["models"]
    assert [knowing[name]["value"] for name in ("d", "l", "p")] == [1, 1, 1]
    assert [knowing[name]["reached"] for name in ("d", "l", "p")] == ["yes"] * 3
    assert [fooled[name]["value"] for name in ("d", "l", "p")] == [0.5, -1, 0]
    assert fooled["l"]["reached"] == "no"
    # More than 0.4 apart are, in each of 36 pairs of photographs, the clean one and strengths 3 to 5 of 4 distortions,
    # and strengths 1 and 5 of any two.
    assert knowing["p"]["pairs"] == 36 * (3 * 4 + 4 * 4)
    assert mean_auroc(knowing, "effects") == 1
    assert mean_auroc(fooled, "waterloo") == 0
    assert mean_auroc({}, "effects") is None
    assert len(knowing["auroc"]["effects"]["blur"]) == 5
    assert knowing["auroc"]["distortions"]["jpeg"] == [1] * 5
    assert knowing["crops"]["value"] == knowing["sizes"]["value"] == 0
    assert "attack" not in knowing
    assert result["photographs"][0] == "0.png"


def test_pairs_at_which_models_disagree_name_their_pictures(measured: Measured):
    noise = np.random.default_rng(0).random((PHOTOGRAPHS, len(LABELS[WATERLOO])))
    both = Measured(
        measured.photographs, {("even", WATERLOO): noise, ("knowing", WATERLOO): measured.scores["knowing", WATERLOO]}
    )
    pairs = gmad_of([model("even"), model("knowing")], both, [WATERLOO])
    assert {(pair["defender"], pair["attacker"]) for pair in pairs} == {("even", "knowing"), ("knowing", "even")}
    for pair in pairs:
        for side in ("better", "worse"):
            place = pair[side]["photograph"], LABELS[WATERLOO].index(pair[side]["label"])
            assert pair[side]["scores"]["even"] == noise[place]
        better, worse = (pair[side]["scores"][pair["attacker"]] for side in ("better", "worse"))
        assert better > worse
    assert gmad_of([model("even")], both, []) == []
