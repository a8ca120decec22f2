import math

from distill.scoring.columns import IMAGE_COLUMNS, REGION_COLUMNS, Column, Kind, Layout, model_columns
from pseudo_labels.records import Status
from students.regions import RegionResult
from students.runtime import Row

REGION = RegionResult(0.5, 0.25, (1, 2, 3, 4), 0.125, Status.OK, "")
LOST = RegionResult(math.nan, math.nan, (0, 0, 0, 0), math.nan, Status.EMPTY, "no \udcff pixel")
ROW = Row("not utf-8 \udcff.jpg", 1 / 3, Status.OK, "a note", (REGION, LOST))


def test_columns_that_come_later_stand_behind_the_earlier_ones():
    layout = Layout([*IMAGE_COLUMNS, *REGION_COLUMNS, *model_columns("m", "ab12")])
    assert layout.names[:4] == ("path", "score", "status", "reason")
    assert layout.names[-2:] == ("model", "model_sha256")
    image, region, lost = layout.dicts(ROW)
    assert image["path"] == region["path"] == lost["path"]
    assert str(image["path"]).startswith("file://%2F")
    assert [one["model"] for one in (image, region, lost)] == ["m"] * 3
    assert (image["region"], region["region"], lost["region"]) == (None, 0, 1)
    assert (region["score"], region["quality"], region["box"]) == (None, 0.5, [1, 2, 3, 4])
    assert [lost[name] for name in ("quality", "importance", "box", "area")] == [None] * 4
    assert lost["reason"] == "no \\udcff pixel"


def test_without_their_columns_regions_have_no_record():
    assert len(list(Layout().records(ROW))) == len(list(Layout().lines(ROW))) == 1


def test_the_table_leaves_out_what_has_no_heading_and_ends_with_words():
    further = Column("stars", Kind.WHOLE, lambda row: 4, heading="stars")
    layout = Layout([*IMAGE_COLUMNS, *REGION_COLUMNS, *model_columns("m", "ab12"), further])
    headings = [column.heading for column in layout.shown_columns]
    assert headings == ["image", "score", *(one.name for one in REGION_COLUMNS), "stars", "status", "reason"]
    image, region, _ = layout.lines(ROW)
    assert image == ["not utf-8 \\xff.jpg", "0.333", *[""] * 5, "4", "ok", "a note"]
    assert region == ["", "", "0", "0.500", "0.250", "1 2 3 4", "0.125", "", "ok", ""]


def test_cells_of_csv():
    layout = Layout(IMAGE_COLUMNS, excel_safe=True)
    assert list(layout.cells(["=1+1", 1 / 3, None, [1, 2]])) == ["'=1+1", "0.333333", "", "1 2"]
    assert list(Layout().cells(["=1+1"])) == ["=1+1"]
