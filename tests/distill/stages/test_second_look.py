from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.cli import app
from distill.stages.second_look import Observed, draft_look, fit_head, ordered, visible_pairs
from distill.stress.large_copies import CLEAN, LADDERS, SCALED, SCALES
from distill.terminal import console
from pseudo_labels.errors import PocketiqaError
from students.look import Head
from students.runtime import Scorer
from tests.helpers.pools import photograph
from tests.helpers.tiny_students import export_tiny


def observed(photographs: int = 6, *, blind: bool = False) -> list[Observed]:
    """A student whose whole view sees nothing, and whose best crop follows the reference (unless it is blind too)."""
    rows = []
    rng = np.random.default_rng(0)
    for number in range(photographs):
        quick = 0.6 + 0.05 * number
        ladders = [
            (kind, strength, step) for kind, own in LADDERS.items() for step, strength in enumerate(own, start=1)
        ]
        for kind, strength, step in [(CLEAN, 0.0, 0), *ladders, *((SCALED, factor, 0) for factor in SCALES)]:
            reference = 1.0 - 0.09 * step
            seen = 0.0 if blind else 4 * reference
            logits = np.array([np.log(quick / (1 - quick)), rng.normal(), seen])
            rows.append(Observed(number, kind, strength, logits, reference, quick))
    return rows


def test_the_head_trusts_what_follows_the_reference() -> None:
    rows = observed()
    assert len(visible_pairs(rows)) == 6 * sum(map(len, LADDERS.values()))
    head = fit_head(rows)
    assert ordered(rows, Head(0.0, 1.0)) == 0.0
    assert ordered(rows, head) > 0.95
    assert head.best > 0.1
    assert head.mean < head.best / 5
    scores = 1 / (1 + np.exp(-head.bias - np.array([one.parts for one in rows]) @ head.weights))
    for one, score in zip(rows, scores, strict=True):
        assert score == pytest.approx(one.quick * one.reference, abs=0.12)


def test_a_pair_that_a_display_does_not_show_is_no_pair() -> None:
    rows = [
        Observed(0, one.kind, one.strength, one.parts, 1.0 if one.strength == 95 else one.reference, 0.7)
        for one in observed(1)
    ]
    kinds = [(rows[better].kind, rows[worse].strength) for better, worse in visible_pairs(rows)]
    assert (CLEAN, 95) not in kinds
    assert ("jpeg", 80) in kinds


def test_copies_that_look_alike_teach_nothing() -> None:
    rows = [Observed(0, one.kind, one.strength, one.parts, 1.0, 0.7) for one in observed(1)]
    with pytest.raises(PocketiqaError, match="a display shows no difference between the copies: name photographs"):
        fit_head(rows)


def pocketiqa(*words: object) -> int:
    return console.run_cli(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photographs and a student."""
    folder = tmp_path_factory.mktemp("fit-look")
    (folder / "photographs").mkdir()
    for name in ("astronaut", "coffee", "chelsea", "rocket", "camera"):
        Image.fromarray(photograph(name, 160)).save(folder / "photographs" / f"{name}.png")
    export_tiny(folder / "tiny.onnx")
    return folder


def test_the_command_writes_a_student_that_can_look_closely(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("fit-look", folder / "photographs", "--model", folder / "tiny.onnx", "--out", folder / "looking.onnx")
    assert pocketiqa(*words, "--min-pixels", 5000, "--texture", 2) == 0
    assert "on the 5 photographs of the fit" in " ".join(capsys.readouterr().out.split())
    look = Scorer(folder / "looking.onnx", look="close").contract.look
    assert look is not None
    assert (look.texture, look.centre, look.crop_side, look.fitted["photographs"]) == (2, 1, 128, 5)
    assert pocketiqa(*words, "--min-pixels", 5000) == 1
    assert "add --overwrite" in capsys.readouterr().err


def test_too_few_photographs_leave_nothing_behind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "none.onnx"
    words = ("fit-look", folder / "photographs" / "coffee.png", "--model", folder / "tiny.onnx", "--out", out)
    assert pocketiqa(*words, "--min-pixels", 5000) == 1
    assert "but 5 are needed to fit a head: name more" in " ".join(capsys.readouterr().err.split())
    assert pocketiqa(*words) == 1
    assert "no photograph of 2.5 megapixels or more" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()
    with pytest.raises(PocketiqaError, match=r"look\.texture is 99"):
        draft_look(str(folder / "tiny.onnx"), texture=99, centre=1, spread=0, default=False)
