"""AGIQA-3K, BIQ2021 in both forms, and CSV files of one's own ratings."""

from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pytest

from distill.evaluation.benchmarks import load_benchmark, with_derived_splits
from pseudo_labels.errors import PocketiqaError
from tests.helpers.shared import shared_data


def test_agiqa_groups_by_prompt_and_reports_by_generator(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(
        "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align\n"
        "AttnGAN_normal_000.jpg,statue of a man,,,,0.965602553,0.223270101,0.40889324,0.615607722\n"
        'AttnGAN_normal_060.jpg,"artwork with only triangles, anime style",,,anime style,0.919776796,0.7,0.85,0.84\n'
        'midjourney_lowstep_060.jpg,"artwork with only triangles, sci-fi style",,,sci-fi style,3.5,0.7,0.85,0.84\n'
        "sd1.5_normal_000.jpg,Statue of a man,,,,2.5,0.2,0.4,0.6\n"
    )
    rows = {row.id: row for row in load_benchmark(f"agiqa3k:{tmp_path}").rows}
    assert rows["AttnGAN_normal_000.jpg"].score == pytest.approx(0.965602553 / 5)
    assert rows["AttnGAN_normal_060.jpg"].group == rows["midjourney_lowstep_060.jpg"].group
    assert rows["AttnGAN_normal_000.jpg"].group == rows["sd1.5_normal_000.jpg"].group
    assert {row.subset for row in rows.values()} == {"AttnGAN", "midjourney", "sd1.5"}


def test_biq2021_as_published(tmp_path: Path) -> None:
    (tmp_path / "Images").mkdir()
    (tmp_path / "Train (Images and MOS).csv").write_text(
        "Image Name,MOS,,\nss03 (3753).jpg,0.8471,,\nss01 (1726).jpg,0.2874,,\n"
    )
    (tmp_path / "Test (Images and MOS).csv").write_text("Image Name,MOS,,\nss02 (12).jpg,0.4430,,\n")
    benchmark = load_benchmark(f"biq2021:{tmp_path}")
    assert [(row.id, row.score, row.subset, row.split) for row in benchmark.rows] == [
        ("ss03 (3753).jpg", 0.8471, "ss03", "train"),
        ("ss01 (1726).jpg", 0.2874, "ss01", "train"),
        ("ss02 (12).jpg", 0.4430, "ss02", "test"),
    ]
    assert "shares scenes" in benchmark.notes[0]


def test_biq2021_as_shared_here() -> None:
    benchmark = load_benchmark(f"biq2021:{shared_data('biq2021')}")
    test = benchmark.select("test")
    assert (len(benchmark.rows), len(test.rows)) == (4721, 600)
    assert sum(row.near_training for row in test.rows) == 92
    assert not any(row.near_training for row in benchmark.select("train").rows)
    clean = {row.group for row in test.rows if not row.near_training}
    assert not clean & {row.group for row in benchmark.select("train").rows}
    assert all(Path(row.path).is_file() for row in test.rows)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return f"csv:{path}"


def test_own_csv_with_all_columns(tmp_path: Path) -> None:
    spec = write(
        tmp_path / "mine.csv",
        "\ufeffpath,mos,group,split,subset,ref,near_train\n"
        'a/"x".png,0.25,g1,Training,night,clean/x.png,\n\nb.png,1,g2,TEST,day,,1\n',
    )
    benchmark = load_benchmark(spec)
    first, second = benchmark.rows
    assert (first.id, first.path, first.ref) == (
        'a/"x".png',
        str(tmp_path / 'a/"x".png'),
        str(tmp_path / "clean/x.png"),
    )
    assert (first.split, first.group, first.subset, first.near_training) == ("train", "g1", "night", False)
    assert (second.split, second.near_training, second.score) == ("test", True, 1.0)
    assert benchmark.split_origin == "published"


def test_own_csv_with_the_least(tmp_path: Path) -> None:
    benchmark = load_benchmark(write(tmp_path / "mine.csv", "image,mos\nb.png,0.5\nc.png,0.7\n"))
    assert [row.group for row in benchmark.rows] == ["b.png", "c.png"]
    assert benchmark.split_origin == "none"
    with pytest.raises(PocketiqaError, match="no split 'test': known splits: none"):
        benchmark.select("test")
    assert {row.split for row in with_derived_splits(benchmark).rows} == {"train", "test"}


def test_own_csv_names_its_scale(tmp_path: Path) -> None:
    spec = write(tmp_path / "mine.csv", "image,mos\nb.png,1\nc.png,4\n")
    assert [row.score for row in load_benchmark(f"{spec}?scale=1:5").rows] == [0.0, 0.75]
    assert [row.score for row in load_benchmark(f"{spec}?scale=0:100&best=low").rows] == [0.99, 0.96]
    for options in ("scale=5:1", "scale=1", "scale=a:b", "best=up", "size=3"):
        with pytest.raises(PocketiqaError, match="is not like scale=1:5"):
            load_benchmark(f"{spec}?{options}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,score\na.png,0.5\n", "lacks the column 'mos': it has image, score"),
        ("photo,mos\na.png,0.5\n", "none of the columns image, path, image_name, name.*it has photo, mos"),
        ("image,mos\na.png,good\n", "data row 1: mos is 'good', but a number is needed"),
        ("image,mos\na.png,nan\n", "mos is 'nan'"),
        (
            "image,mos\na.png,3.5\n",
            r"rating 3.5 lies outside the scale 0 to 1; name the scale, such as csv:mine.csv\?scale=1:5",
        ),
        ("image,mos\na.png,0.5\na.png,0.6\n", "'a.png' is listed twice"),
        ("image,mos\n,0.5\n", "data row 1: image is empty"),
        ("image,mos\n", "none of the columns"),
        ("image,mos,split\na.png,0.5,dev\n", "split is 'dev', known: train, validation, test"),
        (
            "image,mos,group,split\na.png,0.5,g,train\nb.png,0.5,g,test\n",
            "group 'g' is in the splits 'train' and 'test'",
        ),
        ("", "lacks the column 'mos': it has none"),
    ],
)
def test_wrong_csv_files_are_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PocketiqaError, match=message):
        load_benchmark(write(tmp_path / "mine.csv", text))


def test_own_csv_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_bytes(b"\x89PNG\r\n\xff\xfe\x00")
    with pytest.raises(PocketiqaError, match=r"cannot be read as text: byte 0 \(0x89\) is not utf-8"):
        load_benchmark(f"csv:{tmp_path / 'mine.csv'}")


# --- one picture in several spellings

Form = Literal["NFC", "NFD"]


def rated(tmp_path: Path, *names: str) -> str:
    (tmp_path / "images").mkdir(exist_ok=True)
    lines = [f'"{name}",{number / 10}' for number, name in enumerate(names)]
    return write(tmp_path / "mine.csv", "\n".join(["image,mos", *lines]))


@pytest.mark.parametrize(
    "other", ["./images/a.png", "images//a.png", "images/./a.png", "images/x/../a.png", "images\\a.png", "images/A.PNG"]
)
def test_a_picture_in_two_spellings_is_refused(tmp_path: Path, other: str) -> None:
    spec = rated(tmp_path, "images/a.png", "b.png", other)
    (tmp_path / "images/a.png").write_bytes(b"x")
    # As on a disk that takes upper and lower case for the same.
    if not (tmp_path / "images/A.PNG").exists():
        (tmp_path / "images/A.PNG").hardlink_to(tmp_path / "images/a.png")
    (tmp_path / "images/x").mkdir()
    with pytest.raises(PocketiqaError, match=r"'images/a.png'.*; remove one of the two rows"):
        load_benchmark(spec)


def test_pictures_that_differ_in_case_alone_are_two(tmp_path: Path) -> None:
    spec = rated(tmp_path, "images/a.png", "images/A.png")
    (tmp_path / "images/a.png").write_bytes(b"x")
    if (tmp_path / "images/A.png").exists():
        pytest.skip("this disk takes upper and lower case for the same")
    (tmp_path / "images/A.png").write_bytes(b"y")
    assert len(load_benchmark(spec).rows) == 2


@pytest.mark.parametrize(("written", "stored"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC")])
def test_names_are_matched_in_any_unicode_form(tmp_path: Path, written: Form, stored: Form) -> None:
    names = ["été/Å1.png", "été/が2.png", "plain.png"]
    spec = rated(tmp_path, *(normalize(written, f"images/{name}") for name in names))
    for name in names:
        file = tmp_path / "images" / normalize(stored, name)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(name.encode())
    rows = load_benchmark(spec).rows
    assert [Path(row.path).read_bytes().decode() for row in rows] == names
    assert [row.id for row in rows] == [normalize(written, f"images/{name}") for name in names]


def test_one_picture_in_two_unicode_forms_is_refused(tmp_path: Path) -> None:
    spec = rated(tmp_path, normalize("NFC", "images/été.png"), normalize("NFD", "images/été.png"))
    (tmp_path / "images" / normalize("NFC", "été.png")).write_bytes(b"x")
    with pytest.raises(PocketiqaError, match="listed twice"):
        load_benchmark(spec)


def test_paths_of_windows(tmp_path: Path) -> None:
    spec = rated(tmp_path, "images\\a.png", "images\\b\\c.png", "odd\\name.png")
    (tmp_path / "odd\\name.png").write_bytes(b"x")
    rows = load_benchmark(spec).rows
    assert [row.id for row in rows] == ["images/a.png", "images/b/c.png", "odd\\name.png"]
    assert [Path(row.path) for row in rows] == [tmp_path / row.id for row in rows]
    for name in ("C:\\photos\\a.png", "c:/a.png", "\\\\server\\a.png"):
        with pytest.raises(PocketiqaError, match=r"row 1: .* is an absolute path of Windows; write paths relative"):
            load_benchmark(rated(tmp_path, name))


def test_a_flag_is_yes_or_no_and_nothing_else(tmp_path: Path) -> None:
    text = "image,mos,near_train\na.png,0,TRUE\nb.png,0,1\nc.png,0,no\nd.png,0,\n"
    rows = load_benchmark(write(tmp_path / "mine.csv", text)).rows
    assert [row.near_training for row in rows] == [True, True, False, False]
    with pytest.raises(PocketiqaError, match="data row 1: near_train is 'x', known: 1 and 0"):
        load_benchmark(write(tmp_path / "mine.csv", "image,mos,near_train\na.png,0,x\n"))
