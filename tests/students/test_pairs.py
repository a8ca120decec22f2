import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudo_labels.errors import PocketiqaError
from students.contract import PACKED_FORMAT, StudentContract
from students.pairs import PairHead, chances, logits
from students.runtime import Scorer
from tests.helpers.paired import score_head, write_paired
from tests.helpers.pools import photograph

HEAD = PairHead(mean=(1.0, 0.0), scale=(2.0, 0.5), weights=(0.3, -1.0), score=2.0, alike=0.8, fitted={"penalty": 0.1})


def test_strengths_are_linear_and_chances_logistic():
    embeddings, scores = [[1.5, 4.0], [0.0, -2.0], [1.0, 0.0]], [0.5, 0.8, 0.0]
    expected = [0.3 * 1.0 - 2.0, 0.3 * -2.0 + 1.0 + 2 * np.log(4), 2 * np.log(0.001 / 0.999)]
    strengths = HEAD.strengths(embeddings, scores)
    assert strengths == pytest.approx(expected)
    better = chances(strengths)
    assert better[0, 1] == pytest.approx(1 / (1 + np.exp(strengths[1] - strengths[0])))
    assert better + better.T == pytest.approx(np.ones((3, 3)))
    assert np.diag(better) == pytest.approx(0.5)
    assert chances([1e9, -1e9]).tolist() == [[0.5, 1.0], [0.0, 0.5]]


def test_directions_have_length_one_and_the_mean_has_none():
    directions = HEAD.directions([[2.0, 4.0], [0.0, -4.0], [1.0, 0.0]])
    assert directions[:2] == pytest.approx(np.array([[2, 2], [-2, -2]]) / np.sqrt(8))
    assert directions[2].tolist() == [0.0, 0.0]


def test_logits_of_the_ends_are_finite():
    assert logits([0.0, 0.5, 1.0]) == pytest.approx([-6.9068, 0.0, 6.9068], abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [1.0]}, r"pairs\.scale .* as many in each"),
        ({"weights": [0.3, float("nan")]}, r"pairs\.weights .* finite numbers"),
        ({"weights": "many"}, r"pairs\.weights .* a list of finite numbers"),
        ({"scale": [2.0, 0.0]}, r"pairs\.scale holds a number of 0 or less"),
        ({"score": -1}, r"pairs\.score is -1"),
        ({"score": True}, r"pairs\.score is True"),
        ({"alike": 0}, r"pairs\.alike is 0"),
        ({"fitted": None}, r"pairs\.fitted must be an object"),
        ({"colour": 1}, "unknown field 'colour'"),
        ({"mean": [], "scale": [], "weights": []}, r"pairs\.mean"),
    ],
)
def test_unfit_heads_are_refused(change: dict[str, Any], message: str):
    with pytest.raises(PocketiqaError, match=message):
        PairHead.from_dict({**HEAD.as_dict(), **change})


def test_fewer_numbers_than_it_reads_are_refused_and_later_ones_are_not_read():
    with pytest.raises(PocketiqaError, match=r"shape \(1, 1\), but 2 numbers each"):
        HEAD.strengths([[1.0]], [0.5])
    assert HEAD.strengths([[1.0, 2.0, 3.0]], [0.5]) == HEAD.strengths([[1.0, 2.0]], [0.5])


def test_decimals_of_earlier_files_are_read():
    vectors = {name: list(getattr(HEAD, name)) for name in ("mean", "scale", "weights")}
    assert PairHead.from_dict({**HEAD.as_dict(), **vectors}).mean == HEAD.mean


def test_the_file_of_a_student_holds_it(tmp_path: Path):
    scorer = Scorer(write_paired(tmp_path / "paired.onnx", fitted={"pairs": 3}))
    head = scorer.contract.pairs
    assert head == score_head(scorer.contract.student["head_width"], fitted={"pairs": 3})
    record = scorer.contract.as_dict()
    assert record["format"] == PACKED_FORMAT
    assert StudentContract.from_dict(json.loads(scorer.contract.to_json())) == scorer.contract
    result, plain = scorer.score(photograph("coffee")), Scorer("pocket-s", look="quick").score(photograph("coffee"))
    assert result.score == plain.score
    assert result.embedding is not None
    assert head is not None
    assert head.strengths([result.embedding], [result.score]) == pytest.approx(4 * logits([result.score]))
    # Without a head it is the contract that every version reads.
    assert Scorer(write_paired(tmp_path / "plain.onnx", with_head=False)).contract.as_dict()["format"] == 1


def test_a_head_needs_an_embedding(tmp_path: Path):
    contract = replace(Scorer(write_paired(tmp_path / "plain.onnx", with_head=False)).contract, pairs=HEAD)
    contract.check_embedding(True, "m.onnx")
    with pytest.raises(PocketiqaError, match=r"m\.onnx holds a head on pairs, but its network gives no embedding"):
        contract.check_embedding(False, "m.onnx")
