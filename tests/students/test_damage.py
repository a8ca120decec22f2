import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudo_labels.errors import PocketiqaError
from students.contract import PACKED_FORMAT, StudentContract
from students.damage import NONE, TYPES, TypeHead
from students.heads import packed
from students.runtime import Scorer
from tests.helpers.pools import photograph
from tests.helpers.typed import plain_head, probabilities, write_typed

# Two causes of contrast: one where the first number is high, one where it is low.
CAUSES = (*TYPES, "contrast")
FLAT, HARSH = TYPES.index("contrast"), len(TYPES)


def two_ways() -> TypeHead:
    nothing = [[0.0, 0.0] for _ in CAUSES]
    weights, slopes = [list(row) for row in nothing], [list(row) for row in nothing]
    weights[FLAT][0], weights[HARSH][0] = 3.0, -3.0
    slopes[FLAT][0], slopes[HARSH][0] = 0.25, -0.5
    return TypeHead(
        mean=(1.0, 0.0), scale=(2.0, 1.0), causes=CAUSES, weights=tuple(map(tuple, weights)),
        biases=tuple(1.0 * (one == NONE) for one in CAUSES), slopes=tuple(map(tuple, slopes)),
        offsets=(0.1,) * len(CAUSES),
    )  # fmt: skip


def test_types_are_the_sum_of_their_causes_and_strengths_their_mean():
    head = two_ways()
    chances, strengths = head.judged([[1.5, 9.0], [-1.0, 9.0]])
    for row, standard in enumerate((1.0, -4.0)):
        logits = [1.0 * (one == NONE) for one in CAUSES]
        logits[FLAT] += 3 * standard
        logits[HARSH] -= 3 * standard
        each = probabilities(logits)
        assert chances[row, FLAT] == pytest.approx(each[FLAT] + each[HARSH])
        assert chances[row].sum() == pytest.approx(1)
        of_cause = np.clip([0.1 + 0.25 * standard, 0.1 - 0.5 * standard], 0, 1)
        assert strengths[row, FLAT] == pytest.approx(
            (each[FLAT] * of_cause[0] + each[HARSH] * of_cause[1]) / (each[FLAT] + each[HARSH])
        )
    assert strengths[:, TYPES.index(NONE)].tolist() == [0.0, 0.0]
    assert head.damage([-1.0, 9.0]).type == "contrast"
    named = head.damage([1.0, 9.0])
    assert (named.type, named.strength) == ("none", 0.0)
    assert named.probability == pytest.approx(np.e / (np.e + 10))
    # Numbers that an embedding has got since are not read; extreme ones overflow nothing.
    assert head.damage([-1.0, 9.0, 5.0]) == head.damage([-1.0, 9.0])
    assert head.damage([1e6, 0.0]).probability == 1.0


def test_fewer_numbers_than_it_reads_are_refused():
    with pytest.raises(PocketiqaError, match=r"shape \(1, 1\), but 2 numbers each .* `pocketiqa fit-types`"):
        two_ways().damage([1.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"causes": [*TYPES[1:], "blur"]}, r"types\.causes .* each of none, blur, .* is needed"),
        ({"causes": [*TYPES[1:], 5]}, r"types\.causes .* a list of types"),
        ({"causes": "blur"}, r"types\.causes is .* a list is needed"),
        ({"mean": [0.0]}, r"types\.scale .* as many in each"),
        ({"scale": [1.0, 0.0, 1.0]}, r"types\.scale holds a number of 0 or less"),
        ({"weights": [[0.0] * 3]}, r"types\.weights has 1 entries, but there are 10 causes"),
        ({"weights": [[0.0] * 2] * 10}, r"types\.weights\[\] is .* as many in each"),
        ({"slopes": [5] * 10}, r"types\.slopes\[\] is 5, but a list of finite numbers"),
        ({"slopes": packed([0.0] * 29)}, r"types\.slopes\[\] is .* as many in each"),
        ({"slopes": packed([float("inf")] * 30)}, r"types\.slopes\[\] is .* finite numbers"),
        ({"slopes": "AAA"}, r"types\.slopes is 'AAA', .* half precision in base64"),
        ({"mean": "AAAA"}, r"types\.mean is 'AAAA', .* half precision in base64"),
        ({"scale": 1.0}, r"types\.scale is 1\.0, .* half precision in base64"),
        ({"biases": [float("inf")] * 10}, r"types\.biases .* finite numbers"),
        ({"offsets": [True] * 10}, r"types\.offsets .* finite numbers"),
        ({"fitted": None}, r"types\.fitted must be an object"),
        ({"colour": 1}, "unknown field 'colour'"),
    ],
)
def test_unfit_heads_are_refused(change: dict[str, Any], message: str):
    with pytest.raises(PocketiqaError, match=message):
        TypeHead.from_dict({**plain_head().as_dict(), **change})


def test_decimals_of_earlier_files_are_read():
    record, head = two_ways().as_dict(), two_ways()
    lists = {name: list(map(list, getattr(head, name))) for name in ("weights", "slopes")}
    vectors = {name: list(getattr(head, name)) for name in ("mean", "scale")}
    assert TypeHead.from_dict({**record, **lists, **vectors}) == head == TypeHead.from_dict(record)


def test_the_file_of_a_student_holds_it(tmp_path: Path):
    scorer = Scorer(write_typed(tmp_path / "typed.onnx", plain_head(fitted={"scenes": 3})))
    assert scorer.contract.as_dict()["format"] == PACKED_FORMAT
    assert StudentContract.from_dict(json.loads(scorer.contract.to_json())) == scorer.contract
    result, plain = scorer.score(photograph("coffee")), Scorer("pocket-s", look="quick").score(photograph("coffee"))
    assert result.score == plain.score
    assert result.embedding is not None
    assert result.damage is not None
    assert result.damage.type == "noise"
    assert result.damage.strength == pytest.approx(np.clip(0.25 + 0.5 * result.embedding[0], 0, 1))
    assert result.damage.probability == pytest.approx(probabilities([4.0] + [0.0] * 9)[0])
    row = scorer.row("coffee", read=lambda _: photograph("coffee"))
    assert row.damage == result.damage


def test_a_head_needs_an_embedding(tmp_path: Path):
    contract = replace(Scorer("pocket-s").contract, pairs=None, types=plain_head())
    contract.check_embedding(True, "m.onnx")
    with pytest.raises(PocketiqaError, match=r"m\.onnx holds a head on types, .* `pocketiqa fit-types`"):
        contract.check_embedding(False, "m.onnx")
