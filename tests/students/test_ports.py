"""The resize in other languages, against the vectors, by the compilers that this machine has."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from students.preprocess import Preprocess
from tests.helpers.imports import ROOT
from tests.helpers.vectors import CASES, PATH, pattern, vector

PORTS = Path(ROOT) / "ports"
RECORDS = json.loads(PATH.read_text())


def built(language: str, folder: Path) -> list[str]:
    """The command of a port; skips where the machine lacks its compiler."""
    compiler = {"c": "gcc", "rust": "rustc", "javascript": "node"}[language]
    if shutil.which(compiler) is None:
        pytest.skip(f"this machine has no {compiler}")
    program = str(folder / "resize")
    commands = {
        "c": ["gcc", "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, PORTS / "c/resize.c", "-lm"],
        "rust": ["rustc", "--edition", "2021", "-O", "-D", "warnings", "-o", program, PORTS / "rust/resize.rs"],
    }
    if language == "javascript":
        return ["node", str(PORTS / "javascript/resize.mjs")]
    subprocess.run(commands[language], check=True, cwd=folder)
    return [program]


@pytest.fixture(scope="module", params=["c", "rust", "javascript"])
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return built(request.param, tmp_path_factory.mktemp("port"))


def resized(port: Sequence[str], rgb: np.ndarray, max_side: int, min_side: int) -> bytes:
    sizes = [*rgb.shape[:2], max_side, min_side]
    return subprocess.run(
        [*port, *map(str, sizes)], input=rgb.tobytes(), stdout=subprocess.PIPE, check=True
    ).stdout  # fmt: skip


def test_the_vectors_are_those_of_the_runtime():
    assert [record["name"] for record in RECORDS] == list(CASES)
    assert [vector(name) for name in CASES] == RECORDS


def test_the_stated_formulas_make_the_inputs():
    # As docs/preprocess.md words them, one value at a time.
    noise, waves = pattern("noise", 5, 7), pattern("waves", 200, 300)
    for i in range(5 * 7 * 3):
        value = i * 2654435761 % 2**32
        value = (value ^ (value >> 15)) * 2246822519 % 2**32
        assert noise.reshape(-1)[i] == value >> 24
    for y, x in ((0, 0), (199, 299), (77, 123)):
        expected = [(3 * x + 2 * y + x * y // 128) % 256, (x + 5 * y) % 256, (x * x + y) // 64 % 256]
        assert waves[y, x].tolist() == expected


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["name"])
def test_a_port_gives_the_bytes_of_the_vector(port: list[str], record: dict):
    made = record["input"]
    rgb = pattern(made["pattern"], made["height"], made["width"])
    result = resized(port, rgb, record["max_side"], record["min_side"])
    assert list(result[:24]) == record["output"]["first_bytes"]
    assert hashlib.sha256(result).hexdigest() == record["output"]["sha256"]


def test_a_port_gives_the_bytes_of_the_runtime_at_any_size(port: list[str]):
    rng = np.random.default_rng(5)
    for _ in range(12):
        height, width = (int(2 ** rng.uniform(0, 10)) for _ in range(2))
        plan = Preprocess(int(rng.integers(64, 400)), 64)
        rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert resized(port, rgb, plan.max_side, plan.min_side) == plan.resize(rgb).tobytes(), (height, width, plan)


def test_a_port_names_wrong_use(port: list[str]):
    wrong = subprocess.run([*port, "3"], input=b"", capture_output=True)
    assert wrong.returncode == 2
    assert b"HEIGHT WIDTH MAX_SIDE MIN_SIDE" in wrong.stderr
