"""Each reader on a small file in the published format; names, columns and values are as in the real files."""

from pathlib import Path

import numpy as np
import openpyxl
import pytest
from scipy.io import savemat

from distill.evaluation.benchmarks import Benchmark, load_benchmark
from distill.evaluation.benchmarks.wild import read_mat
from pseudo_labels.errors import PocketiqaError


def by_id(benchmark: Benchmark) -> dict:
    return {row.id: row for row in benchmark.rows}


@pytest.fixture
def koniq(tmp_path: Path) -> Path:
    (tmp_path / "1024x768").mkdir()
    (tmp_path / "koniq10k_distributions_sets.csv").write_text(
        "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set\n"
        "10004473376.jpg,0.0,0.0,0.238095238095,0.695238095238,0.0666666666667,105,77.3836206897,0.527277894494,training\n"
        "10007357496.jpg,0.0,0.03125,0.46875,0.489583333333,0.0104166666667,96,68.7285714286,0.580003024795,test\n"
        "10043785683.jpg,0.0,0.0,0.433962264151,0.566037735849,0.0,106,71.2043269231,0.497974333332,validation\n"
    )
    return tmp_path


def test_koniq_with_its_published_split(koniq: Path) -> None:
    benchmark = load_benchmark(f"koniq10k:{koniq}")
    row = by_id(benchmark)["10004473376.jpg"]
    assert row.path == str(koniq / "1024x768" / "10004473376.jpg")
    assert row.mos_native == 77.3836206897
    assert row.score == pytest.approx((77.3836206897 - 1) / 99)
    assert [row.split for row in benchmark.rows] == ["train", "test", "validation"]
    assert benchmark.split_origin == "published"
    assert benchmark.scale.describe() == "1 to 100, highest is best"


def test_koniq_scores_alone_use_the_same_scale_and_a_derived_split(koniq: Path) -> None:
    (koniq / "koniq10k_distributions_sets.csv").unlink()
    (koniq / "koniq10k_scores_and_distributions.csv").write_text(
        '"image_name","c1","c2","c3","c4","c5","c_total","MOS","SD","MOS_zscore"\n'
        "10004473376.jpg,0,0,25,73,7,105,3.828571429,0.527278,77.38362069\n"
        "10007357496.jpg,0,3,45,47,1,96,3.479166667,0.580003,68.72857143\n"
    )
    benchmark = load_benchmark(f"koniq10k:{koniq}")
    assert by_id(benchmark)["10004473376.jpg"].score == pytest.approx((77.38362069 - 1) / 99)
    assert benchmark.split_origin == "derived"
    assert {row.split for row in benchmark.rows} <= {"train", "validation", "test"}


def test_koniq_with_an_unknown_set(koniq: Path) -> None:
    labels = koniq / "koniq10k_distributions_sets.csv"
    labels.write_text(labels.read_text().replace("validation", "holdout"))
    with pytest.raises(PocketiqaError, match="row 3: set is 'holdout', known: training"):
        load_benchmark(f"koniq10k:{koniq}")


def spaq_rows() -> list[list[object]]:
    header: list[object] = ["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"]
    return [
        header,
        ["00001.jpg", 48.86, 50, 40, 30, 20, 10],
        ["00002.jpg", 62.5, 1, 2, 3, 4, 5],
        ["00014.jpg", 5.83, 0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("form", ["xlsx", "csv"])
def test_spaq_as_published_and_as_converted(tmp_path: Path, form: str) -> None:
    (tmp_path / "TestImage").mkdir()
    (tmp_path / "Annotations").mkdir()
    labels = tmp_path / "Annotations" / f"MOS and Image attribute scores.{form}"
    if form == "csv":
        labels.write_text("\n".join(",".join(map(str, row)) for row in spaq_rows()))
    else:
        book = openpyxl.Workbook()
        for row in spaq_rows():
            book.worksheets[0].append(row)
        book.save(labels)
    benchmark = load_benchmark(f"spaq:{tmp_path}")
    assert [(row.id, row.score) for row in benchmark.rows] == [
        ("00001.jpg", pytest.approx(0.4886)),
        ("00002.jpg", pytest.approx(0.625)),
        ("00014.jpg", pytest.approx(0.0583)),
    ]
    assert benchmark.rows[0].path == str(tmp_path / "TestImage" / "00001.jpg")


def write_livec(root: Path, names: list[str], ratings: list[float]) -> None:
    """The two MATLAB files: a column of cells with names, and a row of ratings."""
    (root / "Data").mkdir()
    (root / "Images" / "trainingImages").mkdir(parents=True)
    cells = np.empty((len(names), 1), object)
    cells[:, 0] = names
    savemat(root / "Data" / "AllImages_release.mat", {"AllImages_release": cells})
    savemat(root / "Data" / "AllMOS_release.mat", {"AllMOS_release": np.array([ratings])})


def test_livec_leaves_out_the_seven_images_that_trained_the_raters(tmp_path: Path) -> None:
    names = [f"t{number}.bmp" for number in range(1, 8)] + ["3.bmp", "104.bmp", "1024.JPG"]
    write_livec(tmp_path, names, [50.0] * 7 + [44.4461, 9.2291, 60.5])
    benchmark = load_benchmark(f"livec:{tmp_path}")
    assert [row.id for row in benchmark.rows] == ["3.bmp", "104.bmp", "1024.JPG"]
    assert benchmark.rows[1].score == pytest.approx(0.092291)
    assert benchmark.rows[0].path == str(tmp_path / "Images" / "3.bmp")


def test_livec_with_files_that_do_not_belong_together(tmp_path: Path) -> None:
    write_livec(tmp_path, ["3.bmp", "4.bmp"], [44.0])
    with pytest.raises(PocketiqaError, match="2 names but 1 ratings"):
        load_benchmark(f"livec:{tmp_path}")


def test_a_broken_matlab_file_is_named(tmp_path: Path) -> None:
    write_livec(tmp_path, ["3.bmp"], [44.0])
    (tmp_path / "Data" / "AllMOS_release.mat").write_bytes(b"no MATLAB")
    with pytest.raises(PocketiqaError, match=r"AllMOS_release\.mat cannot be read as a MATLAB file"):
        load_benchmark(f"livec:{tmp_path}")
    savemat(tmp_path / "Data" / "AllMOS_release.mat", {"other": np.zeros(1)})
    with pytest.raises(PocketiqaError, match="holds no array 'AllMOS_release'"):
        load_benchmark(f"livec:{tmp_path}")


@pytest.fixture
def flive(tmp_path: Path) -> Path:
    (tmp_path / "database").mkdir()
    (tmp_path / "database" / "labels_image.csv").write_text(
        "name,mos\n"
        "blur_dataset/motion0044.jpg,75.44372347614072\n"
        "voc_emotic_ava/JPEGImages__2007_001630.jpg,69.38307101608626\n"
        "voc_emotic_ava/VOC2012__2007_001630.jpg,68.1\n"
        "voc_emotic_ava/EMOTIC__cwpvmtkuw83q2or3za.jpg,59.64871868\n"
        "blur_dataset/motion0091.jpg,0.0\n"
    )
    return tmp_path


def test_flive_with_its_split_in_two_more_files(flive: Path) -> None:
    (flive / "database" / "labels>640.csv").write_text(
        "mos_patch_1,name_patch,mos_image,name_image,width_image\n79.4,patches/x.jpg,59.6,voc_emotic_ava/EMOTIC__cwpvmtkuw83q2or3za.jpg,1200\n"
    )
    (flive / "database" / "labels<=640_padded.csv").write_text(
        "name_image,mos_image,is_valid\nblur_dataset/motion0044.jpg,75.4,True\nblur_dataset/motion0091.jpg,0.0,False\n"
    )
    benchmark = load_benchmark(f"flive:{flive}")
    rows = by_id(benchmark)
    assert benchmark.split_origin == "published"
    assert rows["voc_emotic_ava/EMOTIC__cwpvmtkuw83q2or3za.jpg"].split == "test"
    assert rows["blur_dataset/motion0044.jpg"].split == "validation"
    assert rows["blur_dataset/motion0091.jpg"].split == "train"
    assert rows["blur_dataset/motion0044.jpg"].score == pytest.approx(0.7544372347614072)
    assert rows["blur_dataset/motion0044.jpg"].subset == "blur_dataset"
    assert rows["blur_dataset/motion0044.jpg"].path == str(flive / "database" / "blur_dataset/motion0044.jpg")


def test_flive_keeps_two_copies_of_one_photograph_together(flive: Path) -> None:
    benchmark = load_benchmark(f"flive:{flive}")
    assert benchmark.split_origin == "derived"
    rows = by_id(benchmark)
    copies = [rows[f"voc_emotic_ava/{source}__2007_001630.jpg"] for source in ("JPEGImages", "VOC2012")]
    assert copies[0].group == copies[1].group
    assert copies[0].split == copies[1].split


def test_uhdiqa_finds_images_in_the_folder_of_their_set(tmp_path: Path) -> None:
    for name in ("training", "validation", "test"):
        (tmp_path / name).mkdir()
    (tmp_path / "uhd-iqa-metadata.csv").write_text(
        "image_name,quality_mos,set,subset,orig_width,orig_height,user_name\n"
        '1.jpg,0.76,training,,5515,3375,"congerdesign, x"\n'
        "4.jpg,0.5745,test,night,5456,3632,Efra\n8.jpg,0.613,validation,,1,1,A\n"
    )
    rows = by_id(load_benchmark(f"uhdiqa:{tmp_path}"))
    assert (rows["1.jpg"].split, rows["1.jpg"].score) == ("train", 0.76)
    assert (rows["4.jpg"].split, rows["4.jpg"].subset) == ("test", "night")
    assert rows["8.jpg"].path == str(tmp_path / "validation" / "8.jpg")


def test_uhdiqa_of_the_challenge_has_only_training_images(tmp_path: Path) -> None:
    (tmp_path / "challenge" / "training").mkdir(parents=True)
    (tmp_path / "uhd-iqa-training-metadata.csv").write_text("image_name,quality_mos\n1.jpg,0.76\n")
    benchmark = load_benchmark(f"uhdiqa:{tmp_path}")
    assert [(row.split, row.path) for row in benchmark.rows] == [("train", str(tmp_path / "challenge/training/1.jpg"))]


def test_missing_image_folder_is_named(koniq: Path) -> None:
    (koniq / "1024x768").rmdir()
    with pytest.raises(PocketiqaError, match="no folder '1024x768' or '512x384'"):
        load_benchmark(f"koniq10k:{koniq}")


def test_a_corrupt_matlab_file_is_refused_in_one_line(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"AllMOS_release": np.arange(90.0) ** 0.5}, do_compression=True)
    whole, said = (tmp_path / "a.mat").read_bytes(), []
    changed = [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in range(0, len(whole), 17)]
    cut = [whole[:at] for at in range(0, len(whole), 31)]
    for data in (*changed, *cut):
        (tmp_path / "a.mat").write_bytes(data)
        try:
            read_mat(tmp_path / "a.mat", "AllMOS_release")
        except PocketiqaError as error:
            said.append(str(error))
    assert len(said) > 20
    assert [words for words in said if len(words.splitlines()) != 1] == []
