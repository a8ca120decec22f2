"""The examples that score in C, Rust and JavaScript, against ``Scorer``, by the compilers that this machine has."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from students.contract import Calibration
from students.formats.sealing import seal, unsealed
from students.runtime import Scorer
from students.session import read_model
from students.shipped import model_path
from tests.helpers.imports import ROOT
from tests.helpers.pools import photograph

PORTS, WEB = Path(ROOT) / "ports", Path(ROOT) / "web/node_modules"
EXAMPLES = {"c": "c/score.c", "rust": "rust/score.rs", "javascript": "javascript/score.mjs"}
MOST_LINES = 150


def library() -> str:
    """The library of ONNX Runtime, which comes in its Python wheel; skips where it is not there under its own name."""
    spec = find_spec("onnxruntime")
    assert spec is not None, "a dependency"
    assert spec.origin is not None, "a package with a file"
    found = sorted(Path(spec.origin).parent.glob("capi/libonnxruntime.so*"))
    if not found:
        pytest.skip("the wheel of onnxruntime holds no libonnxruntime.so here")
    return str(found[0])


def built(language: str, folder: Path) -> list[str]:
    """The command of an example; skips where the machine lacks what it needs."""
    needed = {"c": "gcc", "rust": "rustc", "javascript": "node"}[language]
    if shutil.which(needed) is None:
        pytest.skip(f"this machine has no {needed}")
    source = PORTS / EXAMPLES[language]
    if language == "javascript":
        if not (WEB / "onnxruntime-web").is_dir():
            pytest.skip("the packages of web/ are not installed: make web")
        # Node looks for packages beside the script and above.
        shutil.copytree(source.parent, folder / "js")
        (folder / "js/node_modules").symlink_to(WEB, target_is_directory=True)
        return ["node", str(folder / "js" / source.name)]
    program = str(folder / "score")
    commands = {
        "c": ["gcc", "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source, "-lm", "-ldl"],
        "rust": ["rustc", "--edition", "2021", "-O", "-D", "warnings", "-o", program, source],
    }
    subprocess.run(commands[language], check=True, cwd=folder)
    return [program, library()]


@pytest.fixture(scope="module", params=list(EXAMPLES))
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return built(request.param, tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pocket-s with a calibration that moves every score, and bends at several."""
    path = tmp_path_factory.mktemp("model") / "calibrated.onnx"
    graph, contract, _ = unsealed(read_model(model_path("pocket-s")), "pocket-s")
    knots = ((0.0, 0.1), (0.5, 0.125), (0.6, 0.7), (0.75, 0.8), (1.0, 0.95))
    path.write_bytes(seal(graph, replace(contract, calibration=Calibration(knots)), "pocket-s")[0])
    return path


def scored(example: Sequence[str], *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*example, *map(str, words)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kind", ["plain", "calibrated"])
def test_an_example_scores_as_the_runtime_does(example: list[str], calibrated: Path, tmp_path: Path, kind: str):
    model = model_path("pocket-s") if kind == "plain" else calibrated
    scorer, expected = Scorer(model, look="quick"), []
    # Larger and smaller than the student's input, oblong and not.
    for name, side in (("coffee", 400), ("cat", 150), ("astronaut", 333)):
        rgb = photograph(name, side)
        Image.fromarray(rgb).save(tmp_path / f"{name}.ppm")
        expected.append((str(tmp_path / f"{name}.ppm"), scorer.score(rgb).score))
    result = scored(example, model, *(path for path, _ in expected))
    assert result.returncode == 0, result.stderr
    lines = [line.split(" ", 1) for line in result.stdout.splitlines()]
    assert [path for _, path in lines] == [path for path, _ in expected]
    assert [float(score) for score, _ in lines] == pytest.approx([score for _, score in expected], abs=1e-4)
    assert len({score for score, _ in lines}) == len(lines)


def test_an_example_says_what_is_wrong(example: list[str], tmp_path: Path):
    photo = tmp_path / "photo.ppm"
    photo.write_bytes(b"P6\n80 64\n255\n" + bytes(100))
    for words, status, reason in (
        ((), 2, "MODEL.onnx PHOTO.ppm"),
        ((tmp_path / "missing.onnx", photo), 1, "missing.onnx"),
        ((model_path("pocket-s"), photo), 1, "shorter than its header says"),
        ((model_path("pocket-s"), PORTS / "c/score.c"), 1, "no binary PPM file (P6)"),
    ):
        result = scored(example, *words)
        assert (result.returncode, result.stdout) == (status, "")
        assert reason in result.stderr


@pytest.mark.parametrize("language", EXAMPLES)
def test_an_example_is_short(language: str):
    lines = (PORTS / EXAMPLES[language]).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= 120
