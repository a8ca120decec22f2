import json
from pathlib import Path

import pytest
from PIL import Image

from distill.stages import formats
from distill.stages.formats import measure_formats
from distill.terminal.format_tables import format_notes, format_page, format_table
from students.engines import missing_of
from students.formats.packages import FORMS
from students.formats.registry import FORMATS, missing_packages
from students.runtime import Scorer
from students.shipped import model_path
from tests.helpers.tiny_students import photographs


def test_a_student_of_the_package_is_measured_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """But of the folders one that is run and one that is evaluated: the others take a minute (``test_packages``)."""
    packaged = {name: FORMS[name] for name in ("openvino", "coreml")}
    monkeypatch.setattr(formats, "FORMS", packaged)
    Image.fromarray(photographs()[0]).save(tmp_path / "photo.png")
    steps: list[tuple[int, int]] = []
    measured = measure_formats("pocket-s", images=[tmp_path], progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, steps[-1][1]) for done in range(1, steps[-1][1] + 1)]
    assert (measured.model, measured.digest) == ("pocket-s", Scorer("pocket-s").digest)
    rows = {(row.name, row.engine): row for row in measured.rows}
    float_row, int8, small = (rows[name, "onnxruntime"] for name in ("onnx", "onnx-int8", "onnx-w8"))
    assert float_row.agreement is not None
    assert float_row.agreement.largest == 0
    assert float_row.network is not None
    assert float_row.network.ratio == 1
    # The file in 8 bits is the one of the package, not another.
    assert int8.size_bytes == model_path("pocket-s-int8").stat().st_size
    # Of the network: both files hold the same heads.
    heads = len(json.dumps(Scorer("pocket-s").contract.as_dict()))
    assert small.size_bytes - heads <= 0.3 * (float_row.size_bytes - heads)
    for row in (int8, small):
        assert row.agreement is not None
        assert 0 < row.agreement.mean <= 0.02  # without VNNI sums of 8 bits saturate
        assert row.network is not None
        assert 0.05 < row.network.ratio < 3
        assert row.whole is not None
        assert row.whole.median_ms > row.network.median_ms * 0.2
    others = [row for row in measured.rows if row.engine == "openvino" and row.name.startswith("onnx")]
    assert len(others) == 3
    for row in others:
        # Without VNNI one of both engines saturates, and OpenVINO may be refused for the file in 8 bits.
        refused = row.name == "onnx-int8" and "computes this model wrongly" in row.missing
        assert bool(row.missing) == bool(missing_of("openvino")) or refused
    for name in packaged:
        (row,) = (row for row in measured.rows if row.name == name)
        assert bool(row.missing) == bool(missing_packages(name))
        if not row.missing:
            assert row.agreement is not None
            assert row.agreement.largest <= 1e-4
            assert (row.network is None) == bool(FORMATS[name].only_on)
    assert format_table(measured).row_count == sum(not row.missing for row in measured.rows)
    page = format_page([measured], "pocketiqa formats pocket-s --page")
    assert "## pocket-s" in page
    megabytes = model_path("pocket-s-int8").stat().st_size / 1e6
    assert f"| onnx-int8 | onnxruntime | {megabytes:.2f} MB |" in page
    assert measured.machine in format_notes(measured)[-1]
