"""The short form of the campaign's kills, for the commands that no other test kills; and that faults are noticed.

``label``, ``distort``, ``fuse``, ``fit-teacher`` and ``distill`` are killed beside their own tests.
"""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from students.storage import save_student
from tests.campaign.kills import (
    BY_NAME,
    EARLIER,
    Outcome,
    as_record,
    command_of,
    contents,
    inspect,
    kill,
    leftovers,
    torn,
    write_photographs,
    write_rated,
    write_recipes,
)
from tests.helpers.campaign import WHOLE, kills
from tests.helpers.tiny_students import export_tiny, tiny_student
from tests.helpers.videos import write_video

HERE = "tests.campaign.test_kills"
_LONG = ["export", "compare-folders --out"] if WHOLE else []


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, ratings, a student and a recipe, as ``build_inputs`` makes them, without training anything."""
    folder = tmp_path_factory.mktemp("inputs")
    write_photographs(folder / "photographs", 12)
    write_photographs(folder / "changed", 12, 88, 72)
    write_photographs(folder / "few", 3)
    write_video(folder / "clip.mkv", frames=24)
    write_rated(folder / "photographs", folder / "rated.csv")
    student = tiny_student()
    save_student(student, folder / "student", about={"name": "tiny"})
    export_tiny(folder / "student.onnx", student)
    write_recipes(folder)
    return folder


@pytest.mark.parametrize("name", ["pool", "score --out --resume", "evaluate --out", "frames", *_LONG])
def test_kills_leave_the_bytes_of_an_unbroken_run_and_nothing_else(name: str, inputs: Path, tmp_path: Path):
    wanted = kills(30, short=2)
    outcome = kill(BY_NAME[name], inputs, tmp_path, kills=wanted, seed=1)
    assert outcome == replace(outcome, kills=wanted, differing=(), leftovers=(), fault="")
    assert outcome.as_promised
    assert outcome.lives > wanted


def test_a_run_that_is_killed_ends_as_if_it_had_not_been(inputs: Path, tmp_path: Path):
    # A teacher of a second; what is tried is how the stages follow each other.
    case = replace(BY_NAME["run"], words=("run", "{in}/fit.yaml", "--out", "{out}"))
    outcome = kill(case, inputs, tmp_path, kills=kills(30, short=2), seed=1, settings=("fit.steps=4",))
    assert (outcome.as_promised, outcome.fault) == (True, "")
    assert outcome.files > 20


def test_torn_files_are_noticed(tmp_path: Path):
    whole = {
        "a.png": lambda path: Image.fromarray(np.zeros((70, 70, 3), np.uint8)).save(path),
        "a.safetensors": lambda path: save_file({"w": np.zeros(9)}, path),
        "a.json": lambda path: path.write_text('{"a": 1}'),
        "a.txt": lambda path: path.write_text("anything"),
    }
    for name, write in whole.items():
        write(tmp_path / name)
        assert torn(tmp_path / name) == ""
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1])
        assert bool(torn(tmp_path / name)) == (name != "a.txt")


def test_a_file_under_its_final_name_is_the_new_or_the_earlier_one(tmp_path: Path):
    life = command_of(BY_NAME["export"], tmp_path, tmp_path)
    out = Path(life["out"])
    for folder in (out.parent, tmp_path / "unbroken"):
        folder.mkdir()
    (tmp_path / "unbroken" / out.name).write_bytes(b"whole")
    inspect(life, False)  # nothing there yet
    for data in (EARLIER, b"whole"):
        out.write_bytes(data)
        inspect(life, False)
    out.write_bytes(b"who")
    with pytest.raises(AssertionError, match="torn"):
        inspect(life, False)


def test_differences_and_leftovers_are_noticed(tmp_path: Path):
    (tmp_path / "report").mkdir()
    for name in ("a.csv", ".a.csv.1-0123abcd.tmp", ".a.csv.rows", "timings.jsonl", "report/report.html"):
        (tmp_path / name).write_text(name)
    assert leftovers(tmp_path) == [".a.csv.1-0123abcd.tmp"]
    assert {name: bool(data) for name, data in contents(tmp_path).items()} == {
        "a.csv": True,
        ".a.csv.1-0123abcd.tmp": True,
        ".a.csv.rows": False,  # tells which row was made in which life
        "timings.jsonl": False,
        "report/report.html": False,
    }
    good = Outcome("pool", 3, 6, 2, (), (), 1.0)
    assert as_record(good)["as_promised"]
    for change in ({"differing": ("a",)}, {"leftovers": (".a",)}, {"fault": "torn"}, {"files": 0}):
        assert not replace(good, **change).as_promised


def live_in_place(life: dict[str, Any], unbroken: bool) -> None:
    """A command that writes under the final name, in steps."""
    out, aside = Path(life["out"]), Path(life["work"]) / "unbroken"
    if not unbroken and not aside.exists():
        os.rename(out.parent, aside)
    out.parent.mkdir(exist_ok=True)
    with open(out, "wb", buffering=0) as file:
        for number in range(200):
            file.write(b"%d\n" % number)
            time.sleep(0.002)


def test_a_command_that_writes_in_place_is_caught(tmp_path: Path):
    case = replace(BY_NAME["evaluate --out"], imports=())
    outcome = kill(case, tmp_path, tmp_path / "work", kills=3, target=f"{HERE}:live_in_place")
    assert "is torn" in outcome.fault
