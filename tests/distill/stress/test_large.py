import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.stress.large import HUGE_PIXELS, LargeResult, LargeScores, large_photographs, stress_large
from distill.stress.large_copies import LADDERS, damaged
from distill.stress.large_reference import FAST_METRICS, reference_of
from distill.stress.large_table import large_table
from distill.terminal.console import out as console_out
from pseudo_labels.errors import PocketiqaError
from students.export import with_look
from students.look import Head, SecondLook
from students.runtime import Scorer
from tests.helpers.tiny_students import export_tiny, photographs

LOOK = SecondLook(Head(0.1, 0.5, 0.5), crop_side=64, texture=2, pixels=60_000, from_pixels=20_000)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[LargeResult, ...], Path, list[str]]:
    """The tiny student with a second look on one small photograph; the model; warnings."""
    folder = tmp_path_factory.mktemp("large")
    model = folder / "looking.onnx"
    model.write_bytes(with_look(export_tiny(folder / "tiny.onnx").path.read_bytes(), LOOK, "tiny"))
    Image.fromarray(photographs()[0]).save(folder / "a.png")
    Image.fromarray(photographs()[0][:70, :70]).save(folder / "small.png")
    (folder / "broken.png").write_bytes(b"nothing")
    # Timing is tried on a picture that is not large.
    patch = pytest.MonkeyPatch()
    patch.setattr("distill.stress.large._TIMED_PIXELS", 100_000)
    warnings: list[str] = []
    files = [folder / "small.png", folder / "a.png", folder / "broken.png"]
    judge = reference_of(FAST_METRICS)
    results = stress_large([model], files, judge, min_pixels=10_000, warn=warnings.append)
    patch.undo()
    return results, model, warnings


def test_both_looks_are_measured_on_the_same_copies(measured) -> None:
    (quick, close), model, warnings = measured
    assert (quick.look, close.look) == ("quick", "close")
    assert len(warnings) == 2
    (one,), (other,) = quick.photographs, close.photographs
    assert one.references == other.references
    rgb = photographs()[0]
    for look, scores in (("quick", one), ("close", other)):
        scorer = Scorer(model, look=look)
        expected = [scorer.score(rgb).score]
        expected += [scorer.score(damaged(rgb, "noise", strength, name="a.png")).score for strength in LADDERS["noise"]]
        assert list(scores.ladders["noise"]) == expected
        assert scores.time > 0
    assert one.ladders != other.ladders


def test_the_table_and_the_json_say_what_was_measured(measured) -> None:
    result = measured[0][1]
    with console_out.capture() as printed:
        console_out.print(large_table(result))
    assert "close look, 1 photographs" in printed.get()
    assert "no photograph" in printed.get()  # of 24 megapixels
    record = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert record["verdicts"][1]["figure"] is None
    assert set(record["kinds"]) == set(LADDERS)


def scores(drop: float, *, moves: tuple[float, ...] = (0.01, -0.02), pixels: int = HUGE_PIXELS) -> LargeScores:
    """Scores whose ladders all fall, but for the last two qualities of JPEG."""
    references = {kind: tuple(1 - 0.1 * step for step in range(len(own) + 1)) for kind, own in LADDERS.items()}
    # Quality 95 differs by less than a display shows.
    references["jpeg"] = (1.0, 0.99, *references["jpeg"][2:])
    ladders = {
        kind: tuple(0.8 - drop * step / len(own) for step in range(len(own) + 1)) for kind, own in LADDERS.items()
    }
    jpeg = ladders["jpeg"]
    ladders["jpeg"] = (jpeg[0], jpeg[0], *jpeg[2:5], jpeg[6], jpeg[6])
    return LargeScores("a", pixels, ladders, references, moves, 1.1)


def test_only_pairs_that_a_display_shows_differently_count_and_equal_is_wrong() -> None:
    result = LargeResult("m", "d", "quick", (scores(0.3),))
    assert scores(0.3).right("jpeg") == [True, True, True, True, False]
    assert result.fraction() == (13 / 14, 14)
    assert result.fraction("blur") == (1.0, 3)


def test_figures_are_held_against_their_limits() -> None:
    result = LargeResult("m", "d", "quick", tuple(scores(0.3) for _ in range(6)))
    ordered, drop, move, time = result.verdicts
    assert (ordered.passed, ordered.failed) == (False, True)
    assert drop.figure == pytest.approx(0.3)
    assert drop.passed
    assert move.figure == pytest.approx(0.015)
    assert (time.figure, time.limit, time.passed) == (1.1, 1.15, True)
    assert result.failed
    small = LargeResult("m", "d", "close", tuple(scores(0.05, pixels=9_000_000) for _ in range(6)))
    assert np.isnan(small.verdicts[1].figure)
    assert small.verdicts[3].limit == 2.0


def test_no_photograph_at_all_is_an_error_with_the_next_step(tmp_path: Path) -> None:
    Image.fromarray(photographs()[0]).save(tmp_path / "a.png")
    with pytest.raises(PocketiqaError, match="no photograph of 8 megapixels or more: name clean large photographs"):
        list(large_photographs([tmp_path / "a.png"], min_pixels=8_000_000))
