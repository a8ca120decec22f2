"""Label files of all kinds: located, read and checked, with errors that name the file, the row and the column."""

from pathlib import Path

import openpyxl
import pytest

from distill.evaluation.benchmarks import load_benchmark
from distill.evaluation.benchmarks.tables import find_file, find_folder, number, read_csv, read_sheet
from pseudo_labels.errors import PocketiqaError


def test_the_first_name_that_exists_is_taken(tmp_path: Path) -> None:
    (tmp_path / "b.csv").touch()
    (tmp_path / "c.csv").touch()
    (tmp_path / "images").mkdir()
    names = ["a.csv", "b.csv", "c.csv"]
    assert find_file(tmp_path, names, benchmark="some", source="its page") == tmp_path / "b.csv"
    # A folder is no file, and a file no folder.
    assert find_folder(tmp_path, ["b.csv", "images"], benchmark="some") == tmp_path / "images"
    with pytest.raises(PocketiqaError, match=r"benchmark some: no 'images' in .*get the data set from its page"):
        find_file(tmp_path, ["images"], benchmark="some", source="its page")


def test_csv_values_are_stripped_and_empty_lines_left_out(tmp_path: Path) -> None:
    path = tmp_path / "mos.csv"
    path.write_bytes(b"\xef\xbb\xbfimage , mos\r\n\r\n a.png , 0.5\r\n")
    assert read_csv(path, ["image", "mos"]) == [{"image": "a.png", "mos": "0.5"}]
    with pytest.raises(PocketiqaError, match=r"mos\.csv lacks the column 'set': it has image, mos"):
        read_csv(path, ["image", "set"])


def write_sheet(path: Path) -> None:
    """A title above the header, a column before it, a name that is a number and an empty row."""
    book = openpyxl.Workbook()
    book.worksheets[0].title = "ratings"
    for row in ([None, "the ratings"], [None, "image", "mos"], [None, 1600, 0.25], [None, None, None], [7, "b", 3]):
        book.worksheets[0].append(row)
    book.save(path)


def test_a_sheet_is_read_below_its_header(tmp_path: Path) -> None:
    write_sheet(tmp_path / "mos.xlsx")
    expected = [{"image": "1600", "mos": "0.25"}, {"image": "b", "mos": "3"}]
    assert read_sheet(tmp_path / "mos.xlsx", "ratings", ["image", "mos"]) == expected
    assert read_sheet(tmp_path / "mos.xlsx", None, ["image", "mos"]) == expected
    with pytest.raises(PocketiqaError, match=r"mos\.xlsx has no row with the column names dmos, image"):
        read_sheet(tmp_path / "mos.xlsx", None, ["image", "dmos"])
    with pytest.raises(PocketiqaError, match="has no sheet 'other': it has ratings"):
        read_sheet(tmp_path / "mos.xlsx", "other", ["image"])


@pytest.mark.parametrize("value", ["good", "", "nan", "inf"])
def test_a_value_that_is_no_finite_number_is_named_with_its_row(value: str) -> None:
    with pytest.raises(PocketiqaError, match=rf"mos\.csv, data row 3: mos is {value!r}, but a number is needed"):
        number({"mos": value}, "mos", path=Path("mos.csv"), position=2)
    assert number({"mos": "-1e-2"}, "mos", path=Path("mos.csv"), position=2) == -0.01


def test_a_file_that_is_excel_only_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "TestImage").mkdir()
    (tmp_path / "MOS and Image attribute scores.xlsx").write_text("Image name,MOS\n00001.jpg,48.86\n")
    with pytest.raises(PocketiqaError, match="cannot be read as an Excel file"):
        load_benchmark(f"spaq:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("koniq10k", "koniq10k_distributions_sets.csv.*KonIQ-10k page"),
        ("spaq", "MOS and Image attribute scores.csv.*SPAQ"),
        ("livec", "AllImages_release.mat.*LIVE laboratory"),
        ("flive", "labels_image.csv.*PaQ-2-PiQ"),
        ("uhdiqa", "uhd-iqa-metadata.csv.*UHD-IQA page"),
        ("kadid10k", "dmos.csv.*KADID-10k page"),
        ("tid2013", "mos_with_names.txt.*TID2013 page"),
        ("live", "dmos_realigned.mat.*LIVE laboratory"),
        ("csiq", "csiq_label.txt.*csiq.DMOS.xlsx.*CSIQ page"),
        ("agiqa3k", "data.csv.*AGIQA-3k"),
    ],
)
def test_missing_files_are_named_with_where_to_get_them(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(PocketiqaError, match=message) as caught:
        load_benchmark(f"{name}:{tmp_path}")
    assert "\n" not in str(caught.value)
