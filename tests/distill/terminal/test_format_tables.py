from dataclasses import replace

from distill.terminal.format_tables import format_notes, format_page, format_table
from students.formats.agreement import Agreement
from students.formats.measured import Measured, Row
from students.formats.registry import FORMATS
from students.formats.timing import Timed

CLOSE = Agreement(30, ((64, 64), (64, 96)), srcc=0.9991, mean=0.0031, bias=-0.0012, largest=0.017, map_cell=0.1)
EQUAL = Agreement(30, ((64, 64),), srcc=1.0, mean=0.0, bias=0.0, largest=0.0, map_cell=0.0)
ROWS = (
    Row("onnx", "onnxruntime", 2_000_000, EQUAL, Timed(10.0, 1.0), Timed(14.0, 1.0)),
    Row("onnx-int8", "onnxruntime", 800_000, CLOSE, Timed(5.0, 0.5), Timed(9.0, 0.64)),
    Row("onnx", "openvino", 2_000_000, missing="openvino is not installed"),
    Row("onnx-int8", "openvino", 800_000, missing="openvino is not installed"),
)
MEASURED = Measured("mine", "abcdef0123456789", ROWS, "x86_64, AMD, avx512_vnni", 8.0)


def test_rows_that_ran_are_shown_and_others_noted_once():
    assert format_table(MEASURED).row_count == 2
    missing, machine = format_notes(MEASURED)
    assert missing == "not measured: onnx by openvino, onnx-int8 by openvino: openvino is not installed"
    assert machine == "x86_64, AMD, avx512_vnni; 8.0 processes a core (busy machine: trust ratios, not milliseconds)"


def test_the_page_has_every_format_and_the_numbers_of_every_row():
    page = format_page([MEASURED], "pocketiqa formats mine --page")
    assert "Written by `pocketiqa formats mine --page` on 20" in page
    for name in FORMATS:
        assert f"\n| {name} | " in page
    expected = "| 0.80 MB | 0.9991 | 0.0031 (-0.0012) | 0.017 | 5.0 ms | 0.50 | 9.0 ms | 0.64 |"
    assert f"| onnx-int8 | onnxruntime {expected}" in page
    assert "Float model abcdef012345" in page
    assert "scores of 30 images" in page


def test_what_is_evaluated_and_not_run_has_no_times():
    measured = replace(MEASURED, rows=(*ROWS, Row("coreml", "evaluation of the program", 2_100_000, EQUAL)))
    assert format_table(measured).row_count == 3
    assert "| coreml | evaluation of the program | 2.10 MB | 1.0000 |" in (page := format_page([measured], "x"))
    assert "| - | - | - | - |" in page
