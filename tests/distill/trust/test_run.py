import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.trust.definitions import DEFINITIONS, TESTS, VIEWS, WATERLOO
from distill.trust.models import Model
from distill.trust.pictures import LABELS, version_of
from distill.trust.run import trust
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import read_record
from tests.distill.trust.conftest import DARKNESS, Compared


def test_page_json_and_markdown_say_the_same(compared: Compared):
    record = read_record(compared.out.with_suffix(".json"), what="trust")
    assert record == json.loads(json.dumps(compared.result))
    assert (record["tests"], len(record["photographs"])) == (list(TESTS), 1)
    tiny, darkness = record["models"]
    assert (tiny["name"], darkness["name"]) == ("tiny", "darkness")
    assert set(DEFINITIONS) - {"gmad", "srcc", "intervals"} <= set(tiny)
    text, page = compared.out.with_suffix(".md").read_text(), compared.out.read_text()
    cell = f"{tiny['l']['value']:.3f}".replace("-", "−")
    assert cell in text
    assert cell in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<img") >= 2


def test_a_function_has_no_twin_and_is_attacked_by_those_of_others(compared: Compared):
    tiny, darkness = compared.result["models"]
    assert "no gradient" in darkness["attack"]["reason"]
    assert darkness["cross"]["tiny"]["clean"]["n"] == 1
    assert tiny["cross"] == {}
    gains = tiny["attack"]["clean"]
    assert gains["pgd 4"]["value"] > max(0, gains["random 4"]["value"])
    # Darkness rises by at most 4 grey levels of 255, wherever the student was attacked.
    assert abs(darkness["cross"]["tiny"]["clean"]["value"]) <= 4 / 255 + 1e-6


def test_no_score_is_made_twice(compared: Compared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    scored: list[str] = []
    score = Model.score

    def counted(self: Model, rgb: np.ndarray) -> float:
        scored.append(self.name)
        return score(self, rgb)

    monkeypatch.setattr(Model, "score", counted)
    # What a killed run lacked is made, and nothing else.
    key = compared.result["models"][1]["key"][:16]
    lost = compared.words["scores"] / key / version_of(VIEWS)[:16]
    (file,) = lost.iterdir()
    content = file.read_bytes()
    file.unlink()
    words = compared.words | {"ratings": None, "tests": [VIEWS, WATERLOO]}
    again = trust(out=tmp_path / "again.html", **words)
    assert scored == ["darkness"] * len(LABELS[VIEWS])
    assert file.read_bytes() == content
    for figure in ("d", "l", "p", "crops", "sizes"):
        assert [one[figure] for one in again["models"]] == [one[figure] for one in compared.result["models"]]


def test_files_are_not_replaced_unasked(compared: Compared):
    with pytest.raises(OutputConflictError, match=r"page\.html exists already"):
        trust(out=compared.out, **compared.words)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"out": Path("page.txt")}, r"page\.txt: the page is HTML, name it page\.html"),
        ({"photographs": []}, "with --on"),
        ({"photographs": [Path("nowhere")]}, r"no photographs to test on"),
        ({"tests": ["waterlo"]}, "waterlo: there is no such test, choose waterloo"),
        ({"first": 0}, "--first 0"),
        ({"ratings": None, "split": "test"}, "--split test"),
        ({"ratings": None, "intervals": [Path("a.json")]}, r"--intervals a\.json"),
        ({"ratings": "koniq:here"}, "koniq:here"),
        ({"picture": Path("a.jpg")}, r"name it a\.png"),
        ({"picture": Path("a.png"), "tests": [VIEWS]}, r"a\.png: there would be nothing to draw"),
        ({"models": []}, "at least one"),
        ({"models": ["pocket-x"]}, "'pocket-x' is no model"),
        ({"models": [DARKNESS, DARKNESS]}, "same model"),
        ({"models": ["tests.teachers.test_plain:light"]}, "no function 'light'"),
        ({"models": ["reference"]}, "reference compares with a clean reference"),
        ({"brisque": Path("nowhere")}, r"nowhere/brisque_model_live\.yml"),
    ],
)
def test_wrong_input_is_named_before_the_work(compared: Compared, tmp_path: Path, changed: dict[str, Any], words: str):
    given = {"out": tmp_path / "page.html", **compared.words, **changed}
    if "out" in changed:
        given["out"] = tmp_path / changed["out"]
    if "brisque" in changed:
        pytest.importorskip("cv2")
    with pytest.raises(PocketiqaError, match=words):
        trust(**given)
    assert list(tmp_path.iterdir()) == []
