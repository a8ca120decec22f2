"""The commands as they are typed; what they do is tested in ``test_meanings``."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.cli import app
from distill.terminal import console
from students.meaning.population import Population
from tests.helpers.training import texture


def pocketiqa(*words: object) -> int:
    return console.run_cli(app, [str(word) for word in words])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(20):
        Image.fromarray(texture(number, number, (64, 72))).save(folder / f"{number}.png", compress_level=1)
    return folder


def test_population(tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "mine.json"
    assert pocketiqa("population", pictures, "--out", out, "--name", "textures") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("textures: 20 photographs scored by pocket-m")
    # Stars and verdicts of the shipped model come along with any population of it.
    assert Population.load(out).stars is not None
    assert pocketiqa("population", pictures, "--out", out) == 1
    assert "exists already" in capsys.readouterr().err
    assert pocketiqa("population", pictures / "0.png", "--out", tmp_path / "few.json") == 1
    assert "1 photographs have a score, and a population needs 20" in capsys.readouterr().err


def test_calibrate_and_intervals(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    generator = np.random.default_rng(0)
    scores = generator.random(120)
    ratings = np.clip(1 + 4 * scores**2 + generator.normal(0, 0.2, 120), 1, 5)
    lines = [f"{at}.jpg,{rating},{score}" for at, (rating, score) in enumerate(zip(ratings, scores, strict=True))]
    table = tmp_path / "own.csv"
    table.write_text("\n".join(["image,mos,score", *lines]) + "\n")
    assert pocketiqa("calibrate", table, "--scale", "1:5", "--out", tmp_path / "cal.json") == 0
    printed = capsys.readouterr()
    assert "isotonic, fitted to 120 photographs of 120 scenes" in printed.out
    assert printed.out.rstrip().endswith("lies above 0")
    assert "the column score of" in printed.err
    words = ("intervals", table, "--scale", "1:5", "--out", tmp_path / "iv.json")
    assert pocketiqa(*words) == 2
    assert "--domain" in capsys.readouterr().err
    assert pocketiqa(*words, "--domain", "made up") == 0
    assert "for these alone: made up" in capsys.readouterr().out
    assert pocketiqa("calibrate", table, "--out", tmp_path / "no.json") == 1
    assert "outside the scale 0 to 1; name the scale" in capsys.readouterr().err
    assert not (tmp_path / "no.json").exists()
