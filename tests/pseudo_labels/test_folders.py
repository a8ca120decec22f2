"""What a folder holds: images by name, leftovers by rule, and the count of everything else."""

from pathlib import Path

import pytest

from pseudo_labels import addresses
from pseudo_labels.folders import (
    DECODED_SUFFIXES,
    IMAGE_SUFFIXES,
    PassedOver,
    is_image_name,
    leftover,
    leftover_on_the_way,
    list_folder,
)
from pseudo_labels.sources import list_sources
from students.paths import find_images
from tests.helpers.containers import dataset, write_files


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def names_in(root: Path, recursive: bool = True) -> tuple[list[str], PassedOver]:
    passed = PassedOver()
    listed = list_folder(str(root), passed, recursive=recursive)
    return [str(Path(one.path).relative_to(root)) for one in listed], passed


@pytest.mark.parametrize("name", ["a.dng", "a.CR2", "a.cr3", "a.NEF", "a.arw", "a.hif", "a.jxl", "a.psd", "a.heic"])
def test_photographs_that_cannot_be_decoded_are_listed(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name, "b.txt")
    assert names_in(tmp_path)[0] == [name]
    assert find_images([tmp_path]) == [tmp_path / name]
    assert [entry.address for entry in list_sources([str(tmp_path)]).entries] == [str(tmp_path / name)]


def test_suffixes_are_in_lower_case_and_names_alone_are_none() -> None:
    assert set(DECODED_SUFFIXES) < IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)
    assert not is_image_name(".jpg")
    assert not is_image_name("jpg")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("._p1.jpg", "._*"),
        ("@eaDir", "@eaDir"),
        (".thumbnails", ".thumbnails"),
        ("__MACOSX", "__MACOSX"),
        ("$Recycle.Bin", "$RECYCLE.BIN"),
        (".Trash-1000", ".Trash*"),
        (".trashed-1764374400-a.jpg", ".Trash*"),
        (".pending-1764374400-a.jpg", ".pending-*"),
        ("p1.jpg", ""),
        (".hidden.jpg", ""),
        ("thumbnails", ""),
        ("_a.jpg", ""),
    ],
)
def test_leftovers_are_recognised_by_name(name: str, rule: str) -> None:
    assert leftover(name) == rule
    assert leftover_on_the_way(f"photos/{name}") == rule


def test_leftovers_are_left_out_counted_and_said(tmp_path: Path) -> None:
    touch(tmp_path, "p0.jpg", "._p0.jpg", "._notes.txt", "@eaDir/p0.jpg/S.jpg", "@eaDir/p0.jpg/M.jpg", "@eaDir/x.bin")
    touch(tmp_path, "b/.thumbnails/1.jpg", "b/p1.jpg", "__MACOSX/._p0.jpg", ".git/annex/p9.jpg")
    names, passed = names_in(tmp_path)
    assert names == ["p0.jpg", "b/p1.jpg"]
    assert passed.left_out == {"._*": 1, "@eaDir": 2, ".thumbnails": 1, "__MACOSX": 1, ".git": 1}
    assert not passed.others
    said: list[str] = []
    find_images([tmp_path], recursive=True, warn=said.append)
    assert len(said) == 1
    assert said[0].startswith("images left out by rule: 1 of ._*, 1 of .git, 1 of .thumbnails, 2 of @eaDir")
    assert list(list_sources([str(tmp_path)]).notes) == said
    # Without a look into the folders below, only what lies beside is counted.
    names, passed = names_in(tmp_path, recursive=False)
    assert (names, passed.left_out) == (["p0.jpg"], {"._*": 1})


def test_what_a_person_names_is_taken(tmp_path: Path) -> None:
    write_files(tmp_path, ["@eaDir/1.png", "._2.png"])
    named = [tmp_path / "@eaDir", tmp_path / "._2.png"]
    assert find_images(named) == [tmp_path / "@eaDir/1.png", tmp_path / "._2.png"]
    assert [addresses.local_path(entry.address) for entry in list_sources(list(map(str, named))).entries] == [
        tmp_path / "@eaDir/1.png",
        tmp_path / "._2.png",
    ]


def test_files_that_may_hold_images_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "assets/preview.png", "data/0.parquet", "data/1.parquet", "wds/one.tar", "b.zip", "c.tar.gz")
    touch(tmp_path, "README.md", "a.txt", "b.TXT", "LICENCE", ".gitattributes", "Thumbs.db", "wds/._one.tar")
    touch(tmp_path, ".IMG_1.HEIC.icloud")
    dataset().save_to_disk(tmp_path / "saved")
    dataset().save_to_disk(tmp_path / "dict/train")
    (tmp_path / "dict/dataset_dict.json").write_text('{"splits": ["train"]}')
    names, passed = names_in(tmp_path)
    assert names == ["assets/preview.png"]
    unread = {str(Path(name).relative_to(tmp_path)): count for name, count in passed.unread.items()}
    assert unread == {"data/*.parquet": 2, "wds/*.tar": 1, "*.zip": 1, "*.tar.gz": 1, "saved": 1, "dict": 1}
    assert passed.others == {".md": 1, ".txt": 2, "without suffix": 1, ".icloud": 1}
    notes = "\n".join(list_sources([str(tmp_path)]).notes)
    assert f"2 '{tmp_path}/data/*.parquet'" in notes
    assert f"1 '{tmp_path}/wds/*.tar'" in notes
    assert "name them as sources themselves" in notes
    assert f"1 '{tmp_path}/*.zip'" in notes
    assert "names are not those of images: 2 .txt, 1 .icloud, 1 .md, 1 without suffix" in notes
    said: list[str] = []
    find_images([tmp_path], recursive=True, warn=said.append)
    assert "data/*.parquet" in "\n".join(said)


def test_long_lists_are_cut() -> None:
    passed = PassedOver()
    for number in range(9):
        passed.count(f"/{number}", "a.tar")
    (line,) = passed.sentences("name them")
    assert "'/4/*.tar' and 4 more; name them" in line


def test_files_come_before_folders_and_trouble_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "z.jpg", "b/2.jpg", "a/1.jpg", "a.jpg/3.jpg")
    (tmp_path / "b/up").symlink_to("..")
    (tmp_path / "b/gone").symlink_to("nowhere")
    passed = PassedOver()
    listed = list_folder(str(tmp_path), passed)
    assert [(str(Path(one.path).relative_to(tmp_path)), one.problem) for one in listed] == [
        ("a.jpg", ""),
        ("z.jpg", ""),
        ("a/1.jpg", ""),
        ("a.jpg/3.jpg", ""),
        ("b/2.jpg", ""),
        ("b/gone", ""),
        ("b/up", "a link that leads back to a folder it is in"),
    ]
