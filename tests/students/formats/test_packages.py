"""Students as folders in formats of other runtimes, each run by its own (Core ML's program is evaluated)."""

import json
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError
from pseudo_labels.outputs import read_manifest
from pseudo_labels.remote import location
from students.contract import StudentContract
from students.formats.convert import FloatStudent
from students.formats.packages import CONTRACT, FORMS, Package, PackageReport, without_unfit_heads, write_package
from students.formats.photographs import Photographs
from students.formats.registry import FORMATS
from students.pairs import PairHead
from students.runtime import Scorer
from students.session import OUTPUTS
from tests.helpers.formats import require
from tests.helpers.tiny_students import photographs

# Extras that take no converter and hardly any time.
QUICK = "openvino"


@pytest.fixture(scope="module")
def photo_bytes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photographs whose sides no stride divides."""
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / f"{index}.png" for index in range(len(photographs()))]
    for path, image in zip(paths, photographs(), strict=True):
        Image.fromarray(image[:201, :299]).save(path)
    return paths


@pytest.fixture(scope="module")
def compared(photo_bytes: list[Path]) -> Photographs:
    return Photographs("three photographs", photo_bytes)


@pytest.fixture(scope="module", params=list(FORMS))
def report(
    request: pytest.FixtureRequest,
    tiny_float: FloatStudent,
    compared: Photographs,
    tmp_path_factory: pytest.TempPathFactory,
) -> PackageReport:
    """The tiny student in each format."""
    require(request.param)
    return write_package(tiny_float, request.param, tmp_path_factory.mktemp("package") / "tiny", compared=compared)


def test_every_form_that_is_a_folder_can_be_written():
    assert set(FORMS) == {name for name, entry in FORMATS.items() if entry.is_folder}


def test_its_own_runtime_scores_photographs_as_onnx_runtime_does(
    report: PackageReport, tiny_file: Path, photo_bytes: list[Path]
):
    package, scorer = Package(report.path), Scorer(tiny_file)
    preprocess = package.contract.preprocess
    scores = []
    for path in photo_bytes:
        batch = preprocess.resize(np.asarray(Image.open(path)))[None]
        for ours, theirs in zip(scorer.infer(batch), package.infer(batch), strict=True):
            assert theirs.shape == ours.shape
            np.testing.assert_allclose(theirs, ours, atol=1e-4)
        scores.append(package.score(path.read_bytes()))
        assert scores[-1] == pytest.approx(float(scorer.infer(batch)[0][0]), abs=1e-4)
    # Real scores, not one for all.
    assert len({round(score, 3) for score in scores}) == len(scores)


def test_the_contract_beside_it_says_what_a_program_must_do_and_what_was_measured(
    report: PackageReport, tiny_float: FloatStudent
):
    record = json.loads((report.path / CONTRACT).read_text(encoding="utf-8"))
    contract = StudentContract.from_dict(record)
    assert contract == report.contract
    assert contract.parity == tiny_float.contract.parity
    conversion = record["conversion"]
    assert (conversion["format"], conversion["source"], conversion["half"]) == (report.kind, tiny_float.digest, False)
    assert conversion["input"]["type"] in ("uint8", "image")
    assert tuple(conversion["outputs"][:3]) == OUTPUTS
    assert conversion["outputs"][-1] == "embedding"
    assert conversion["agreement"]["largest"] == report.agreement.largest <= 1e-4
    assert conversion["agreement"]["images"] == 3 * 5 * 3
    assert len(conversion["agreement"]["sizes"]) >= 2
    assert "onnxruntime" in conversion["versions"]
    # Sides: any, or multiples of the largest stride, and then what that costs.
    multiple = contract.preprocess.multiple
    assert (conversion["rounding"] is None) == (multiple == 1)
    if multiple > 1:
        assert multiple == 32
        sizes = [[64, 128], [96, 128], [128, 64], [128, 96], [128, 128]]
        fixed = FORMS[report.kind].fixed_sizes
        assert record["preprocess"] == {
            **{"max_side": 128, "min_side": 64, "multiple": 32},
            **({"sizes": sizes} if fixed else {}),
        }
        assert conversion.get("signatures") == ([f"{height}x{width}" for height, width in sizes] if fixed else None)
        assert {side % 32 for size in conversion["agreement"]["sizes"] for side in size} == {0}
        assert 0 < conversion["rounding"]["mean"] <= conversion["rounding"]["largest"] < 0.5


def test_the_same_export_is_not_made_twice_and_another_is_not_replaced_unasked(
    report: PackageReport, tiny_float: FloatStudent, compared: Photographs
):
    before = {path: path.stat().st_mtime_ns for path in report.path.rglob("*")}
    again = write_package(tiny_float, report.kind, report.path, compared=compared)
    assert again == replace(report, is_new=False)
    other = replace(tiny_float, digest="0" * 64)
    with pytest.raises(OutputConflictError, match="was made differently"):
        write_package(other, report.kind, report.path, compared=compared)
    assert before == {path: path.stat().st_mtime_ns for path in report.path.rglob("*")}


def test_an_export_in_a_bucket_has_the_same_files_and_its_manifest_last(
    tiny_float: FloatStudent, compared: Photographs, tmp_path: Path
):
    require(QUICK)
    address = location("memory://bucket/package/tiny")
    made = write_package(tiny_float, QUICK, address, compared=compared)
    local = write_package(tiny_float, QUICK, tmp_path / "tiny", compared=compared)
    assert read_manifest(address).content["files"].keys() == read_manifest(local.path).content["files"].keys()
    assert (made.is_new, made.size_bytes) == (True, local.size_bytes)
    assert not write_package(tiny_float, QUICK, address, compared=compared).is_new
    fsspec.filesystem("memory").rm("/bucket/package", recursive=True)


def test_altered_and_missing_files_are_refused(report: PackageReport):
    name = max((path for path in report.path.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    whole = name.read_bytes()
    try:
        name.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(IntegrityError, match=f"{name.name} was altered or is missing: export the student again"):
            Package(report.path)
        name.unlink()
        with pytest.raises(IntegrityError, match="was altered or is missing"):
            Package(report.path)
    finally:
        name.write_bytes(whole)
    assert Package(report.path).kind == report.kind


@pytest.mark.parametrize("kind", [name for name in FORMS if FORMATS[name].halves])
def test_weights_in_half_precision_take_half_the_bytes(
    kind: str, tiny_float: FloatStudent, compared: Photographs, tmp_path: Path
):
    require(kind)
    halved = write_package(tiny_float, kind, tmp_path / "tiny", compared=compared, half=True)
    assert 1e-7 < halved.agreement.largest <= 3e-3
    assert halved.contract.conversion is not None
    assert halved.contract.conversion["half"] is True
    weights = sum(numpy_helper.to_array(one).nbytes for one in tiny_float.graph.graph.initializer)
    # The graph of so small a student takes more bytes than its weights, in OpenVINO's XML.
    files = [path for path in halved.path.rglob("*") if path.is_file() and path.suffix != ".xml"]
    assert 0.4 * weights < max(path.stat().st_size for path in files) < 0.7 * weights


def test_a_student_that_does_not_bear_half_precision_leaves_nothing(
    tiny_float: FloatStudent, compared: Photographs, tmp_path: Path
):
    """Logits a thousand times as large: where one is near zero, rounding of the weights before it turns its sign."""
    require(QUICK)
    graph = onnx.ModelProto()
    graph.CopyFrom(tiny_float.graph)
    heads = [node for node in graph.graph.node if node.op_type == "Conv"][-1]
    for tensor in graph.graph.initializer:
        if tensor.name == heads.input[1]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1000), tensor.name))
    steep = replace(tiny_float, graph=graph)
    with pytest.raises(
        PocketiqaError, match=r"openvino differs from ONNX Runtime by .*, the limit is 0.003; leave --half"
    ):
        write_package(steep, QUICK, tmp_path / "steep", compared=compared, half=True)
    assert list(tmp_path.iterdir()) == []


def test_heads_that_read_more_of_the_embedding_than_there_is_are_left_out(tiny_float: FloatStudent):
    width = tiny_float.contract.student["head_width"]
    for numbers, kept in ((width, True), (width + 1, False)):
        pairs = PairHead((0.0,) * numbers, (1.0,) * numbers, (1.0,) * numbers, score=1.0, alike=0.5)
        contract = replace(tiny_float.contract, pairs=pairs)
        assert without_unfit_heads(contract, "openvino") == contract
        assert (without_unfit_heads(contract, "ncnn").pairs == pairs) is kept


def test_what_is_no_export_is_refused(tmp_path: Path):
    with pytest.raises(PocketiqaError, match="no exported student manifest at"):
        Package(tmp_path)
