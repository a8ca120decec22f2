import json
from dataclasses import replace
from pathlib import Path

import pytest

from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.fusion.report import FusionReport, read_fusion_report, write_fusion_report
from tests.helpers.records import alter, rewrite

REPORT = FusionReport(
    rows=4,
    kept=3,
    dropped={"teachers": 1},
    method="auto",
    rule={"min_teachers": 2},
    ensemble={"names": ["a", "b"]},
    teachers=[{"name": "a", "weight": 0.25}, {"name": "b", "weight": 0.75}],
    pairs=[{"first": "a", "second": "b", "n": 3, "srcc": None, "points": [[0.1, 0.2]]}],
    labelled={},
    examples={"kept": [{"row": 1, "score": 0.5, "teachers": [0.5, None]}]},
    features={},
)


def change(folder: Path, **fields: object) -> None:
    rewrite(folder / "fusion.json", **fields)


def test_a_report_is_read_back(tmp_path: Path):
    write_fusion_report(REPORT, tmp_path)
    assert read_fusion_report(tmp_path) == read_fusion_report(str(tmp_path)) == REPORT
    record = json.loads((tmp_path / "fusion.json").read_text())
    assert record == {"format": 1, "report": REPORT.as_dict(), "checksum": record["checksum"]}
    assert [path.name for path in tmp_path.iterdir()] == ["fusion.json"]


def test_the_same_report_leaves_the_file_untouched(tmp_path: Path):
    write_fusion_report(REPORT, tmp_path)
    before = (tmp_path / "fusion.json").stat()
    write_fusion_report(replace(REPORT), tmp_path)
    after = (tmp_path / "fusion.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    write_fusion_report(replace(REPORT, kept=2), tmp_path)
    assert read_fusion_report(tmp_path).kept == 2


def test_an_altered_report_is_refused_and_one_without_a_checksum_is_read(tmp_path: Path):
    write_fusion_report(REPORT, tmp_path)
    alter(tmp_path / "fusion.json", report=REPORT.as_dict() | {"kept": 4})
    with pytest.raises(IntegrityError, match=r"fusion\.json was altered: .*run the same fuse command again"):
        read_fusion_report(tmp_path)
    # As earlier versions wrote it.
    (tmp_path / "fusion.json").write_text(json.dumps({"format": 1, "report": REPORT.as_dict()}))
    assert read_fusion_report(tmp_path) == REPORT


def test_a_report_that_is_missing_or_of_another_format_is_refused(tmp_path: Path):
    with pytest.raises(PocketiqaError, match="no fusion report"):
        read_fusion_report(tmp_path)
    write_fusion_report(REPORT, tmp_path)
    change(tmp_path, format=2)
    with pytest.raises(PocketiqaError, match=r"fusion\.json has format version 2, but this pocketiqa reads 1"):
        read_fusion_report(tmp_path)


@pytest.mark.parametrize("report", [{"rows": 4}, REPORT.as_dict() | {"extra": 1}, None])
def test_a_report_with_other_fields_is_refused(report: object, tmp_path: Path):
    write_fusion_report(REPORT, tmp_path)
    change(tmp_path, report=report)
    with pytest.raises(
        IntegrityError, match=r"fusion\.json is not what pocketiqa writes .*fuse again with --overwrite"
    ):
        read_fusion_report(tmp_path)


def test_text_that_is_no_json_is_refused(tmp_path: Path):
    (tmp_path / "fusion.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"fusion\.json"):
        read_fusion_report(tmp_path)
