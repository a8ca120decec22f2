"""Readers of databases with references: polarity of each scale, and splits that never divide a reference."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from scipy.io import savemat

from distill.evaluation.benchmarks import Benchmark, load_benchmark
from distill.evaluation.benchmarks.synthetic import read_live
from pseudo_labels.errors import PocketiqaError

LIVE_FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


def write_kadid(root: Path) -> None:
    """Ten references; level 1 is good (5 is best, although the column is called dmos)."""
    (root / "images").mkdir()
    lines = ["dist_img,ref_img,dmos,var"]
    for reference in range(1, 11):
        for kind in (1, 4, 9, 11, 16, 19, 25):
            lines += [
                f"I{reference:02d}_{kind:02d}_{level:02d}.png,I{reference:02d}.png,{5 - 0.7 * level:.2f},0.5"
                for level in range(1, 6)
            ]
    (root / "dmos.csv").write_text("\r\n".join(lines))


def write_tid(root: Path) -> None:
    """Names in mixed case in the file, other cases on disk, as in the published archive."""
    (root / "distorted_images").mkdir()
    (root / "reference_images").mkdir()
    for reference in range(1, 6):
        (root / "reference_images" / f"I{reference:02d}.BMP").touch()
    lines = []
    for reference in range(1, 6):
        for kind in (1, 8, 24):
            for level in range(1, 6):
                name = f"i{reference:02d}_{kind:02d}_{level}.bmp"
                (root / "distorted_images" / name).touch()
                lines.append(f"{6.5 - level:.5f} {name.replace('i', 'I', 1) if reference % 2 else name}")
    (root / "mos_with_names.txt").write_text("\n".join(lines) + "\n")


def write_live(root: Path, *, realigned: bool) -> None:
    """982 entries; every fifth is a copy of its reference with difference 0."""
    total = sum(LIVE_FOLDERS.values())
    ratings = np.linspace(-2.6, 111.7, total) if realigned else np.linspace(0, 100, total)
    copies = (np.arange(total) % 5 == 0).astype(np.uint8)
    ratings[copies == 1] = 0
    cells = np.empty((1, total), object)
    cells[0] = [f"ref{at % 29}.bmp" for at in range(total)]
    name, array = ("dmos_realigned.mat", "dmos_new") if realigned else ("dmos.mat", "dmos")
    savemat(root / name, {array: ratings[None], "orgs": copies[None]})
    savemat(root / "refnames_all.mat", {"refnames_all": cells})


def write_csiq_text(root: Path) -> None:
    (root / "dst_imgs" / "AWGN").mkdir(parents=True)
    (root / "src_imgs").mkdir()
    lines = []
    for reference in ("1600", "aerial_city", "boston", "bridge", "lady_liberty"):
        (root / "src_imgs" / f"{reference}.png").touch()
        for level in range(1, 6):
            (root / "dst_imgs" / "AWGN" / f"{reference}.AWGN.{level}.png").touch()
            lines.append(f"{reference}.AWGN.{level}.png\t{0.1 * level:.3f}")
    (root / "csiq_label.txt").write_text("\n".join(lines))


WRITERS: dict[str, Callable[[Path], None]] = {
    "kadid10k": write_kadid,
    "tid2013": write_tid,
    "live": lambda root: write_live(root, realigned=True),
    "csiq": write_csiq_text,
}


@pytest.fixture(params=sorted(WRITERS))
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Benchmark:
    WRITERS[request.param](tmp_path)
    return load_benchmark(f"{request.param}:{tmp_path}")


def test_no_reference_is_in_two_parts(database: Benchmark) -> None:
    parts = {split: {row.ref for row in database.select(split).rows} for split in ("train", "validation", "test")}
    assert all(parts.values())
    assert not parts["train"] & parts["test"]
    assert not parts["train"] & parts["validation"]
    assert not parts["validation"] & parts["test"]
    assert len(parts["test"]) == max(1, round(0.2 * len({row.ref for row in database.rows})))


def test_scores_are_one_for_best(database: Benchmark) -> None:
    values = np.array([row.score for row in database.rows])
    native = np.array([row.mos_native for row in database.rows])
    assert ((values >= 0) & (values <= 1)).all()
    rising = np.corrcoef(values, native)[0, 1]
    # LIVE and CSIQ publish differences from the reference: low is best there.
    assert rising == pytest.approx(-1 if database.name in ("live", "csiq") else 1)


def test_kadid_reads_dmos_as_a_mean_rating(tmp_path: Path) -> None:
    write_kadid(tmp_path)
    rows = {row.id: row for row in load_benchmark(f"kadid10k:{tmp_path}").rows}
    row = rows["I01_01_01.png"]
    assert row.mos_native == 4.3
    assert row.score == pytest.approx((4.3 - 1) / 4)
    assert row.score > rows["I01_01_05.png"].score
    assert (row.ref, row.group) == (str(tmp_path / "images" / "I01.png"), "I01.png")
    families = {kind: rows[f"I02_{kind:02d}_01.png"].subset for kind in (1, 4, 9, 11, 16, 19, 25)}
    assert families == {
        1: "blur",
        4: "colour",
        9: "compression",
        11: "noise",
        16: "brightness",
        19: "spatial",
        25: "sharpness and contrast",
    }


def test_kadid_with_a_foreign_name(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "dmos.csv").write_text("dist_img,ref_img,dmos,var\nI01_99_01.png,I01.png,4.1,0.5\n")
    with pytest.raises(PocketiqaError, match=r"row 1: 'I01_99_01\.png' is not named like"):
        load_benchmark(f"kadid10k:{tmp_path}")


def test_tid_finds_files_whatever_their_case(tmp_path: Path) -> None:
    write_tid(tmp_path)
    rows = {row.id: row for row in load_benchmark(f"tid2013:{tmp_path}").rows}
    assert len(rows) == 75
    assert all(Path(row.path).is_file() and Path(row.ref).is_file() for row in rows.values())
    assert rows["i01_08_1.bmp"].subset == "Gaussian blur"
    assert rows["i01_24_1.bmp"].subset == "sparse sampling"
    assert rows["i01_08_1.bmp"].score == pytest.approx(5.5 / 9)


@pytest.mark.parametrize("line", ["5.5", "5.5 I01.bmp", "5.5 I01_25_1.bmp", "good I01_01_1.bmp"])
def test_tid_with_a_bad_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "distorted_images").mkdir()
    (tmp_path / "mos_with_names.txt").write_text(f"5.5 I01_01_1.bmp\n{line}\n")
    with pytest.raises(PocketiqaError, match=r"(line|row) 2"):
        load_benchmark(f"tid2013:{tmp_path}")


@pytest.mark.parametrize("realigned", [True, False])
def test_live_leaves_out_copies_of_references(tmp_path: Path, realigned: bool) -> None:
    write_live(tmp_path, realigned=realigned)
    benchmark = load_benchmark(f"live:{tmp_path}")
    assert len(benchmark.rows) == 982 - 197
    everything = read_live(tmp_path, include_references=True)
    assert len(everything.rows) == 982
    copies = [row.score for row in everything.rows if row.id == "jp2k/img1.bmp"]
    low, high = (-3, 112) if realigned else (0, 100)
    assert copies == [pytest.approx(1 - (0 - low) / (high - low))]
    folders = {folder: sum(row.subset == folder for row in everything.rows) for folder in LIVE_FOLDERS}
    assert folders == LIVE_FOLDERS
    assert everything.rows[227].id == "jpeg/img1.bmp"
    assert everything.rows[227].ref == str(tmp_path / "refimgs" / f"ref{227 % 29}.bmp")


def test_live_of_another_release(tmp_path: Path) -> None:
    write_live(tmp_path, realigned=True)
    cells = np.empty((1, 2), object)
    cells[0] = ["a.bmp", "b.bmp"]
    savemat(tmp_path / "refnames_all.mat", {"refnames_all": cells})
    with pytest.raises(PocketiqaError, match="2 references, but release 2 has 982"):
        load_benchmark(f"live:{tmp_path}")


def write_csiq_sheet(root: Path) -> None:
    """The header is in the fourth row from column D, names may be numbers, and padding rows follow."""
    book = openpyxl.Workbook()
    sheet = book.create_sheet("all_by_image")
    for _ in range(3):
        sheet.append([])
    sheet.append([None, None, None, "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"])
    kinds = {"noise": 1, "blur": 2, "contrast": 3, "fnoise": 4, "jpeg": 5, "jpeg 2000": 6}
    for image in (1600, "boston", "bridge"):
        for kind, index in kinds.items():
            sheet.append([None, None, None, image, index, kind, 1, 0.061, 0.0619])
    sheet.append([None, None, None, None, None, None, None, None, None])
    book.save(root / "csiq.DMOS.xlsx")


def test_csiq_sheet_names_the_files_of_the_archive(tmp_path: Path) -> None:
    write_csiq_sheet(tmp_path)
    benchmark = load_benchmark(f"csiq:{tmp_path}")
    assert len(benchmark.rows) == 18
    assert {row.id for row in benchmark.rows if row.group == "1600"} == {
        "1600.AWGN.1.png",
        "1600.BLUR.1.png",
        "1600.contrast.1.png",
        "1600.fnoise.1.png",
        "1600.JPEG.1.png",
        "1600.jpeg2000.1.png",
    }
    assert benchmark.rows[0].score == pytest.approx(1 - 0.0619)
    assert benchmark.rows[0].path == str(tmp_path / "dst_imgs" / "awgn" / "1600.AWGN.1.png")


def test_csiq_text_finds_images_in_any_folder_with_and_without_ending(tmp_path: Path) -> None:
    write_csiq_text(tmp_path)
    labels = tmp_path / "csiq_label.txt"
    whole = load_benchmark(f"csiq:{tmp_path}")
    assert all(Path(row.path).is_file() and Path(row.ref).is_file() for row in whole.rows)
    labels.write_text(labels.read_text().replace(".png", ""))
    assert load_benchmark(f"csiq:{tmp_path}").rows == whole.rows
    labels.write_text("1600.AWGN.1.png\n")
    with pytest.raises(PocketiqaError, match=r"line 1: '1600\.AWGN\.1\.png' is not like"):
        load_benchmark(f"csiq:{tmp_path}")


def test_csiq_sheet_with_an_unknown_distortion_or_without_the_sheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.worksheets[0].title = "all_by_image"
    for row in (["image", "dst_type", "dst_lev", "dmos"], ["boston", "glitter", 1, 0.5]):
        book.worksheets[0].append(row)
    book.save(tmp_path / "csiq.DMOS.xlsx")
    with pytest.raises(PocketiqaError, match="dst_type is 'glitter', known: noise, blur"):
        load_benchmark(f"csiq:{tmp_path}")
    book.worksheets[0].title = "other"
    book.save(tmp_path / "csiq.DMOS.xlsx")
    with pytest.raises(PocketiqaError, match="no sheet 'all_by_image': it has other"):
        load_benchmark(f"csiq:{tmp_path}")


def test_a_rating_outside_the_scale_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "dmos.csv").write_text("dist_img,ref_img,dmos,var\nI01_01_01.png,I01.png,41,0.5\n")
    with pytest.raises(PocketiqaError, match="data row 1: rating 41 lies outside the scale 1 to 5"):
        load_benchmark(f"kadid10k:{tmp_path}")
