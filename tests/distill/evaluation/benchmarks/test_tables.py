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


# --- tables as other programs write them

PLAIN = [{"image": "a, b.png", "mos": "0.25"}, {"image": "ü.png", "mos": "0.5"}]


SPELLINGS = {
    "comma": 'image,mos\n"a, b.png",0.25\nü.png,0.5\n',
    "semicolon": "image;mos\na, b.png;0.25\nü.png;0.5\n",
    "tab": "image\tmos\na, b.png\t0.25\nü.png\t0.5\n",
    "bar": "image|mos\na, b.png|0.25\nü.png|0.5\n",
    "sep=": "sep=;\r\nimage;mos\r\na, b.png;0.25\r\nü.png;0.5\r\n",
    "sep= of another": "sep=:\nimage:mos\na, b.png:0.25\nü.png:0.5\n",
    "decimal comma": "image;mos\na, b.png;0,25\nü.png;0,5\n",
    "quoted decimal comma": 'image,mos\n"a, b.png","0,25"\n"ü.png","0,5"\n',
    "capitals": '\n Image ,MOS\n"a, b.png",0.25\nü.png,0.5\n',
    "old Mac": 'image,mos\r"a, b.png",0.25\rü.png,0.5\r',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_table_reads_alike_as_other_programs_write_it(tmp_path: Path, spelling: str, encoding: str) -> None:
    (tmp_path / "mos.csv").write_bytes(SPELLINGS[spelling].lstrip("\n" * (encoding != "utf-8")).encode(encoding))
    assert read_csv(tmp_path / "mos.csv", ["image", "mos"]) == PLAIN


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,mos,mos\na.png,1,2\n", "has 'mos' as columns 2 and 3: rename or remove all but one"),
        ("image,MOS,mos\na.png,1,2\n", "has 'mos' as columns 2 and 3"),
        ("image,mos,group,Group\na.png,1,x,y\n", "has 'group' as columns 3 and 4"),
        ("image,mos\na.png,0,5\n", "data row 1: 3 values for 2 columns; put values .* in quotation marks"),
        ("image;mos\na.png;1,512\nb.png;1,498\n", "mos '1,512' may be 1.512 or 1512"),
        ("a.png,0.5\nb.png,0.7\n", "lacks the column 'image': it has a.png, 0.5; its first line must name the columns"),
        ("photo mos\na.png 0.5\n", "lacks the column 'image': it has photo mos$"),
        ('image,mos\na.png,1\n"b.png,2\nc.png,3\n', "row 3, counted with the header: .*is a quotation mark lost"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*git lfs pull"),
        ("<!DOCTYPE html><html></html>", "a web page"),
        ("PK\x03\x04", "an Excel file, it seems: save its sheet as CSV in UTF-8"),
    ],
)
def test_a_table_that_leaves_a_doubt_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mos.csv").write_text(text)
    with pytest.raises(PocketiqaError, match=message) as caught:
        read_csv(tmp_path / "mos.csv", ["image", "mos"], ["group"])
    assert "\n" not in str(caught.value)


def test_latin_1_is_refused_with_the_byte(tmp_path: Path) -> None:
    (tmp_path / "mos.csv").write_bytes("image,mos\nété.png,1\n".encode("latin-1"))
    with pytest.raises(PocketiqaError, match=r"byte 10 \(0xe9\) is not utf-8; save the file as CSV in UTF-8"):
        read_csv(tmp_path / "mos.csv", ["image", "mos"])


def test_columns_that_are_not_asked_for_may_repeat_or_lack_a_name(tmp_path: Path) -> None:
    (tmp_path / "mos.csv").write_text(",image,mos,note,note,\n0,a.png,1,x,y,\n1,b.png,2\n,,,,,\n")
    rows = read_csv(tmp_path / "mos.csv", ["image", "mos"])
    assert [(row["image"], row["mos"]) for row in rows] == [("a.png", "1"), ("b.png", "2")]


def test_decimals_of_both_kinds_in_one_column_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mos.csv").write_text("image;mos\na.png;0,5\nb.png;0.7\n")
    (row, _) = read_csv(tmp_path / "mos.csv", ["image", "mos"])
    with pytest.raises(PocketiqaError, match="write all decimals of a column with points, or all with commas"):
        number(row, "mos", path=Path("mos.csv"), position=0)
    with pytest.raises(PocketiqaError, match="mos is '1_0'"):
        number({"mos": "1_0"}, "mos", path=Path("mos.csv"), position=0)


def test_a_sheet_follows_the_same_rules(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["Image", "MOS"], ["a.png", "0,25"], ["b.png", "0,5"]):
        book.worksheets[0].append(row)
    book.save(tmp_path / "mos.xlsx")
    assert [row["mos"] for row in read_sheet(tmp_path / "mos.xlsx", None, ["image", "mos"])] == ["0.25", "0.5"]
    book.worksheets[0]["C1"] = "mos"
    book.save(tmp_path / "mos.xlsx")
    with pytest.raises(PocketiqaError, match="has 'mos' as columns 2 and 3"):
        read_sheet(tmp_path / "mos.xlsx", None, ["image", "mos"])


def test_a_corrupt_sheet_is_refused_in_one_line(tmp_path: Path) -> None:
    workbook = openpyxl.Workbook()
    assert workbook.active is not None
    for row in range(40):
        workbook.active.append([f"image{row}.png", row] if row else ["image", "mos"])
    workbook.save(tmp_path / "mos.xlsx")
    whole, said = (tmp_path / "mos.xlsx").read_bytes(), []
    # A byte in every part of the file: of the zip, the compressed XML and its names.
    for at in range(0, len(whole), 61):
        (tmp_path / "mos.xlsx").write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            read_sheet(tmp_path / "mos.xlsx", None, ["image", "mos"])
        except PocketiqaError as error:
            said.append(str(error))
    assert len(said) > 20
    assert [words for words in said if len(words.splitlines()) != 1] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,mos,split\na.png,0.5,test\nb.png,0.5,{long}\n",
            "data row 2: split has 100000 letters, but at most 1000",
        ),
        ("image,mos\n{long},0.5\n", "data row 1: image has 100000 letters"),
        ("image,mos\na.png,{long}\n", "data row 1: mos has 100000 letters"),
        ("photo,{long}\na.png,0.5\n", r"lacks the column 'mos': it has photo, x+\.\.\.$"),
    ],
)
def test_a_message_does_not_repeat_a_value_without_end(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.csv").write_text(text.format(long="x" * 100_000))
    with pytest.raises(PocketiqaError, match=message) as caught:
        load_benchmark(f"csv:{tmp_path / 'own.csv'}")
    assert len(str(caught.value)) < 2000


def test_a_long_number_is_not_repeated_whole(tmp_path: Path) -> None:
    with pytest.raises(PocketiqaError, match=r"data row 1: mos is '\{+'\.\.\., but a number is needed") as caught:
        number({"mos": "{" * 100_000}, "mos", path=tmp_path / "mos.csv", position=0)
    assert len(str(caught.value)) < 1000
