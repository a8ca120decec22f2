from pathlib import Path

import onnx
import pytest
from PIL import Image

from pseudo_labels.errors import IntegrityError, PocketiqaError
from students.formats.agreement import EightBitLimits
from students.formats.card import converted_card
from students.formats.convert import INT8, W8, ConversionReport, FloatStudent, convert, open_float, read_float
from students.formats.photographs import Photographs, RatedPhotographs
from students.runtime import Scorer
from tests.helpers.tiny_students import photographs

# Weights of chance bear less than trained ones do.
LOOSE = EightBitLimits(srcc=0.9, mean=0.03, rated_loss=0.2)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve crops of photographs."""
    folder = tmp_path_factory.mktemp("crops")
    paths = []
    for index in range(12):
        crop = photographs()[index % 3][index * 4 : index * 4 + 120, index * 8 : index * 8 + 200]
        paths.append(folder / f"{index:02}.png")
        Image.fromarray(crop).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def report(tiny_float: FloatStudent, files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> ConversionReport:
    ratings = [(path, float(index)) for index, path in enumerate(files)]
    return convert(
        tiny_float,
        INT8,
        tmp_path_factory.mktemp("int8") / "tiny-int8.onnx",
        calibration=Photographs("crops", files[:8]),
        compared=Photographs("crops", files[8:]),
        rated=RatedPhotographs("orders", ratings),
        limits=LOOSE,
    )


def test_the_file_is_scored_by_name_of_its_contract(report: ConversionReport, tiny_file: Path, files: list[Path]):
    scorer = Scorer(report.path)
    assert scorer.contract.name == "tiny-int8"
    assert scorer.digest == report.digest != Scorer(tiny_file).digest
    rows = list(scorer.score_many(files))
    assert all(row.score is not None for row in rows)
    floats = [row.score for row in Scorer(tiny_file).score_many(files)]
    assert max(abs(row.score - score) for row, score in zip(rows, floats, strict=True) if row.score and score) < 0.1


def test_the_contract_states_source_calibration_and_what_was_measured(
    report: ConversionReport, tiny_float: FloatStudent
):
    conversion = Scorer(report.path).contract.conversion
    assert conversion == report.contract.conversion
    assert conversion is not None
    assert conversion["format"] == "onnx-int8"
    assert conversion["source"] == tiny_float.digest
    assert conversion["calibration"] == {"name": "crops", "photographs": 8}
    assert conversion["agreement"]["srcc"] == report.agreement.srcc
    assert conversion["agreement"]["images"] == 4 * 5 * 3
    assert report.rated is not None
    assert conversion["rated"] == {"name": "orders", "images": 12} | {
        "srcc_float": report.rated.srcc_float,
        "mean": report.rated.mean,
        "bias": report.rated.bias,
        "srcc": report.rated.srcc,
    }
    assert report.contract.parity == tiny_float.contract.parity


def test_the_card_says_both_names_and_what_the_difference_is(report: ConversionReport):
    card = converted_card(report)
    title, _, summary, *_ = card.split("\n")
    assert title == "# tiny-int8"
    assert summary.startswith("tiny-int8 is tiny in 8 bits (onnx-int8)")
    assert f"SRCC {report.agreement.srcc:.4f}" in summary
    assert report.digest[:12] in card
    assert "vnni" in card


@pytest.mark.parametrize("kind", [INT8, W8])
def test_a_student_whose_scores_do_not_follow_is_refused_and_nothing_is_written(
    kind: str, tiny_float: FloatStudent, files: list[Path], tmp_path: Path
):
    with pytest.raises(PocketiqaError, match=r"the export was refused: mean difference 0\.0\d+, at most 1e-07"):
        convert(
            tiny_float,
            kind,
            tmp_path / "tiny.onnx",
            calibration=Photographs("crops", files[:8]),
            compared=Photographs("crops", files[8:9]),
            limits=EightBitLimits(srcc=0.5, mean=1e-7),
        )
    assert list(tmp_path.iterdir()) == []


def test_too_few_photographs_to_calibrate_on_are_refused(tiny_float: FloatStudent, files: list[Path], tmp_path: Path):
    few = Photographs("mine", files[:7])
    with pytest.raises(PocketiqaError, match="mine: 7 of 7 photographs can be used, but 8 are needed"):
        convert(tiny_float, INT8, tmp_path / "t.onnx", calibration=few, compared=few)


def test_what_was_converted_is_not_converted_again(report: ConversionReport):
    with pytest.raises(PocketiqaError, match="is 'onnx-int8' already"):
        read_float(report.path)


def test_altered_files_and_graphs_without_a_contract_are_refused(tiny_file: Path):
    data = bytearray(tiny_file.read_bytes())
    data[1000] ^= 1
    with pytest.raises(IntegrityError, match="was altered"):
        open_float(bytes(data), "mine")


def test_the_graph_is_opened_without_contract_and_checksum(tiny_float: FloatStudent):
    assert not tiny_float.graph.metadata_props
    assert isinstance(tiny_float.graph, onnx.ModelProto)
    assert tiny_float.contract.name == "tiny"
