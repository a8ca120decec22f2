import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from distill.stages.converting import (
    check_options,
    export_converted,
    export_package,
    float_student,
    photographs_of,
)
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from students.formats.convert import INT8, W8
from students.formats.packages import Package
from students.runtime import Scorer
from students.shipped import model_path
from students.storage import save_student
from tests.helpers.formats import require
from tests.helpers.tiny_students import photographs, tiny_student


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photographs in a folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, image in enumerate(photographs()):
        Image.fromarray(image).save(folder / f"{index}.png")
    return folder


def rated_set(folder: Path, split: str) -> Path:
    """A benchmark in the form of a prepared BIQ2021: twelve photographs, all of one part."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,mos,subset,split,group,near_train"]
    for index in range(12):
        crop = photographs()[index % 3][index * 4 : index * 4 + 120, index * 8 : index * 8 + 200]
        Image.fromarray(crop).save(folder / "images" / f"{index}.png")
        lines.append(f"{index}.png,{index / 12:.3f},ss01,{split},{index},0")
    (folder / "mos.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_shipped_student_becomes_a_small_file_by_its_name(tmp_path: Path, photos: Path):
    rated = rated_set(tmp_path / "mine", "train")
    out = tmp_path / "small.onnx"
    report = export_converted("pocket-s", W8, out, images=[photos], rated=f"biq2021:{rated}", card=True)
    # Of the network: both files hold the same heads.
    heads = len(json.dumps(Scorer("pocket-s").contract.as_dict()))
    assert report.size_bytes == out.stat().st_size
    assert report.size_bytes - heads <= 0.3 * (model_path("pocket-s").stat().st_size - heads)
    assert report.rated is not None
    assert (report.rated.name, report.rated.images) == ("biq2021 (mine), train part", 12)
    assert Scorer(out).contract.name == "pocket-s-w8"
    assert (tmp_path / "small.md").read_text().startswith("# pocket-s-w8\n")
    with pytest.raises(OutputConflictError, match="exists already: choose another name"):
        export_converted("pocket-s", W8, out, images=[photos])


def test_a_checkpoint_is_exported_first(tmp_path: Path):
    save_student(tiny_student(), tmp_path / "student", about={"name": "mine"})
    opened = float_student(str(tmp_path / "student"))
    assert opened.contract.name == "mine"
    assert opened.contract.parity is not None
    assert [file.name for file in tmp_path.iterdir()] == ["student"]


def test_a_student_that_does_not_bear_it_leaves_no_file(tmp_path: Path):
    save_student(tiny_student(), tmp_path / "student", about={"name": "mine"})
    with pytest.raises(PocketiqaError, match=r"the export was refused: .*calibrate on photographs more like those"):
        export_converted(str(tmp_path / "student"), INT8, tmp_path / "out.onnx", card=True)
    assert [file.name for file in tmp_path.iterdir()] == ["student"]


def test_nothing_is_calibrated_on_a_test_part(tmp_path: Path):
    rated = rated_set(tmp_path / "mine", "test")
    forbidden: list[dict[str, Any]] = [{"calibrate": f"biq2021:{rated}"}, {"rated": f"biq2021:{rated}"}]
    for options in forbidden:
        with pytest.raises(PocketiqaError, match="has no train part, and nothing may be calibrated on test"):
            export_converted("pocket-s", INT8, tmp_path / "out.onnx", **options)


def test_photographs_come_from_the_package_a_folder_or_a_train_part(tmp_path: Path, photos: Path):
    assert photographs_of(None).name == "bundled photographs"
    assert len(photographs_of(None).paths) > 8
    assert len(photographs_of(str(photos)).paths) == 3
    train = photographs_of(f"biq2021:{rated_set(tmp_path / 'biq2021', 'train')}")
    assert (train.name, len(train.paths)) == ("biq2021, train part", 12)
    with pytest.raises(PocketiqaError, match="no photographs at nowhere: give a folder, an image, or a benchmark"):
        photographs_of("nowhere")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("tflite", {}, "format 'tflite' is not known"),
        (INT8, {"half": True}, r"--half is for --format onnx, openvino, .*, not for onnx-int8"),
        ("onnx", {"rated": "csv:x"}, "--calibrate, --rated and --card are for 8 bits"),
        (W8, {"calibrate": "x"}, "--calibrate is for --format onnx-int8"),
        (W8, {"environment": Path("x")}, "--environment is for --format litert, not for onnx-w8: leave it out"),
    ],
)
def test_options_that_a_format_does_not_have_are_refused(kind: str, options: dict, message: str):
    given = {"half": False, "calibrate": None, "rated": None, "card": False} | options
    with pytest.raises(PocketiqaError, match=message):
        check_options("a folder", kind, **given)


def test_a_shipped_student_becomes_a_folder_by_its_name(tmp_path: Path, photos: Path):
    require("openvino")
    report = export_package("pocket-s", "openvino", tmp_path / "out", images=[photos], half=True)
    assert report.contract.name == "pocket-s"
    assert report.contract.conversion is not None
    assert report.contract.conversion["agreement"]["images"] == 3 * 5 * 3
    scored = Package(tmp_path / "out").score((photos / "0.png").read_bytes())
    assert scored == pytest.approx(Scorer("pocket-s").score(photos / "0.png").score, abs=3e-3)


def test_what_is_exported_already_or_not_there_is_named(tmp_path: Path):
    with pytest.raises(PocketiqaError, match="pocket-s is exported already: copy it, or choose another form"):
        check_options("pocket-s", "onnx", half=False, calibrate=None, rated=None, card=False)
    with pytest.raises(PocketiqaError, match=r"no student at pocket-x: give .* or one of pocket-m, pocket-s"):
        export_converted("pocket-x", W8, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []
