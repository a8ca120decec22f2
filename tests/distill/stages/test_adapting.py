from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from distill.cli import app
from distill.stages import adapting
from distill.stages.adaptation import ADAPTED, BLOCKS, CALIBRATED, UNADAPTED
from distill.stages.adapting import adapt
from distill.terminal.console import run_cli
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.outputs import LOCK
from students.runtime import Scorer
from tests.helpers.tiny_students import export_tiny
from tests.helpers.training import texture


def rho(first: Any, second: Any) -> float:
    result: Any = spearmanr(first, second)
    return float(result.statistic)


IMAGES, SCENES = 60, 30


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("model") / "tiny.onnx").path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, paths = tmp_path_factory.mktemp("pictures"), []
    for number in range(IMAGES):
        paths.append(folder / f"{number}.png")
        rgb = texture(number % SCENES, 3.0 * (number % 7), (64, 80)) * (0.45 + 0.55 * (number * 7 % 11) / 10)
        Image.fromarray(rgb.astype(np.uint8)).save(paths[-1], compress_level=1)
    return paths


def rated(file: Path, pictures: list[Path], rating: Callable[[np.ndarray], float]) -> Path:
    """Ratings from 1 to 5 by what a function says of the pixels, from 0 to 1."""
    rows = [
        f"{path},{1 + 4 * rating(np.array(Image.open(path))):.4f},{number % SCENES}"
        for number, path in enumerate(pictures)
    ]
    file.write_text("\n".join(["image,mos,group", *rows]) + "\n")
    return file


def brightness(rgb: np.ndarray) -> float:
    return float(rgb.mean()) / 255


def chance(rgb: np.ndarray) -> float:
    return float(np.random.default_rng(int(rgb.astype(np.int64).sum())).uniform())


def pocketiqa(*words: object) -> int:
    return run_cli(app, [str(word) for word in words])


def test_the_command_writes_a_student_with_the_taste_of_the_ratings(
    tmp_path: Path, tiny: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
):
    ratings, out = rated(tmp_path / "bright.csv", pictures, brightness), tmp_path / "mine.onnx"
    words = ("adapt", ratings, "--scale", "1:5", "--model", tiny, "--heads-only", "--out", out)
    assert pocketiqa(*words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "tiny adapted to 60 ratings of 30 scenes (bright): heads fitted, penalty" in printed
    before, after = Scorer(tiny), Scorer(out)
    contract = after.contract
    assert (contract.name, contract.calibration, contract.look, contract.pairs) == ("mine", None, None, None)
    assert contract.scale == "ratings of bright, 1 to 5, highest is best, mapped to 0 to 1"
    assert contract.data[-1]["name"] == "0-bright"
    record = contract.metrics["adaptation"]
    assert record["source"] == {"name": "tiny", "sha256": before.digest}
    assert (record["ratings"]["images"], record["ratings"]["scenes"], record["folds"]) == (60, 30, 5)
    assert record["ratings"]["digest"] == contract.data[-1]["digest"]
    assert record["srcc"][ADAPTED][0] > record["srcc"][UNADAPTED][0] + 0.1
    assert record["gain"][UNADAPTED][1] > 0 < record["gain"][CALIBRATED][1]
    # On pictures of other scenes, as the folds say.
    others = [texture(100 + number, 5, (64, 80)) * (0.45 + 0.05 * (number % 11)) for number in range(40)]
    others = [one.astype(np.uint8) for one in others]
    truth = [brightness(one) for one in others]
    plain, adapted = ([scorer.score(one).score for one in others] for scorer in (before, after))
    assert rho(adapted, truth) > rho(plain, truth) + 0.1
    card = out.with_suffix(".md").read_text()
    assert card.startswith("# mine\n\nmine is tiny adapted to 60 ratings of one's own")
    assert after.digest[:12] in card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bright.csv", "mine.md", "mine.onnx"]
    # An earlier file is not replaced unasked.
    assert pocketiqa(*words) == 1
    assert "add --overwrite" in capsys.readouterr().err


def test_nothing_is_written_where_it_does_not_help(
    tmp_path: Path, tiny: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
):
    ratings = rated(tmp_path / "chance.csv", pictures, chance)
    words = ("adapt", ratings, "--scale", "1:5", "--model", tiny, "--heads-only", "--out", tmp_path / "mine.onnx")
    assert pocketiqa(*words) == 1
    assert "nothing is written: on photographs of other scenes" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["chance.csv"]


def test_the_last_blocks_go_on_where_they_were(
    tmp_path: Path, tiny: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(adapting, "_LEAST_STEPS", 6)
    monkeypatch.setattr(adapting, "_MOST_STEPS", 6)
    ratings, out = rated(tmp_path / "bright.csv", pictures, brightness), tmp_path / "mine.onnx"
    folder = tmp_path / "mine.onnx.work"
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        # In the second fold: 60 photographs, six fits of the heads that count 15 each, and six steps of the first.
        if done > 60 + 6 * 15 + 6 + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(str(tiny), str(ratings), out, scale="1:5", progress=stop)
    assert seen == sorted(seen)
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".onnx", ".md")] == []
    kept = {path: path.stat().st_mtime_ns for path in (folder / "heads.json", folder / "fit-0/run/manifest.json")}
    # Other ratings do not go on with these.
    other = rated(tmp_path / "chance.csv", pictures, chance)
    with pytest.raises(OutputConflictError, match=r"was made differently \(ratings"):
        adapt(str(tiny), str(other), out, scale="1:5")
    monkeypatch.setattr(adapting, "MIN_RATINGS", 61)
    with pytest.raises(PocketiqaError, match="60 rated photographs of 30 scenes can be used, but 61 to 5000"):
        adapt(str(tiny), str(ratings), out, scale="1:5")
    monkeypatch.setattr(adapting, "MIN_RATINGS", 50)
    monkeypatch.setattr(adapting, "best_candidate", lambda held_out, *_: list(held_out)[-1])
    times: list[dict[Path, int]] = []

    def look(done: int, total: int) -> None:
        times.append({path: path.stat().st_mtime_ns for path in kept})

    adapted = adapt(str(tiny), str(ratings), out, scale="1:5", progress=look)
    assert all(one == kept for one in times)
    assert (adapted.record["trained"], adapted.record["parts"][-2:]) == (BLOCKS, ["neck", "heads"])
    assert not folder.exists()
    assert Scorer(out).digest == adapted.report.digest


def test_a_path_that_is_no_model_file_is_refused(tmp_path: Path, tiny: Path):
    with pytest.raises(PocketiqaError, match=r"mine\.txt, but the file to write ends in \.onnx"):
        adapt(str(tiny), "ratings.csv", tmp_path / "mine.txt")
    assert LOCK not in {path.name for path in tmp_path.iterdir()}
