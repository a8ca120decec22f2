"""Which photographs are a pair: by name, by name without suffix, by a table."""

from pathlib import Path

import pytest

from distill.scoring.pairing import Pair, pairs_by_name, pairs_of_table
from pseudo_labels.errors import PocketiqaError


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    before, after = tmp_path / "before", tmp_path / "after"
    for folder in (before, after):
        folder.mkdir()
    return before, after


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")


def named(pairs: list[Pair]) -> list[tuple[str | None, str | None]]:
    return [(pair.before and pair.before.name, pair.after and pair.after.name) for pair in pairs]


def by_name(folders: tuple[Path, Path], recursive: bool = False) -> list[Pair]:
    return pairs_by_name(*folders, recursive=recursive, warn=lambda _: None)


def test_equal_names_are_pairs_and_other_suffixes_too(folders: tuple[Path, Path]):
    touch(folders[0], "b.png", "a.png", "c.png")
    touch(folders[1], "a.jpg", "b.png", "b.jpg")
    pairs = by_name(folders)
    # b.jpg stays alone: b.png has its partner.
    assert named(pairs) == [("a.png", "a.jpg"), ("b.png", "b.png"), ("c.png", None), (None, "b.jpg")]
    assert [bool(pair.problem) for pair in pairs] == [False, False, True, True]
    assert pairs[2].problem == f"no file of this name in {folders[1]}"
    assert pairs[3].problem == f"no file of this name in {folders[0]}"


def test_what_may_belong_to_several_is_no_pair(folders: tuple[Path, Path]):
    touch(folders[0], "a.png", "a.tif")
    touch(folders[1], "a.jpg")
    pairs = by_name(folders)
    assert len(pairs) == 3
    assert all("more than two files may belong together" in pair.problem for pair in pairs)


def test_names_in_subfolders_are_those_below_the_folder(folders: tuple[Path, Path]):
    touch(folders[0], "x/1.png", "y/1.png")
    touch(folders[1], "y/1.png", "x/1.webp")
    assert [(pair.name, pair.problem) for pair in by_name(folders, recursive=True)] == [
        ("x/1.png", ""),
        ("y/1.png", ""),
    ]
    with pytest.raises(PocketiqaError, match="2 in its subfolders: add --recursive"):
        by_name(folders)


def test_folders_that_cannot_be_compared_are_refused(folders: tuple[Path, Path], tmp_path: Path):
    touch(folders[0], "a.png")
    with pytest.raises(PocketiqaError, match=r"no images in .*after"):
        by_name(folders)
    with pytest.raises(PocketiqaError, match="are one folder"):
        by_name((folders[0], folders[0]))
    with pytest.raises(PocketiqaError, match="is no folder: name two folders"):
        by_name((folders[0], tmp_path / "nothing"))


@pytest.mark.parametrize("header", ["", "before,after\n", "\ufeffBefore,After,Group\n"])
def test_a_table_names_pairs_and_scenes(folders: tuple[Path, Path], tmp_path: Path, header: str):
    file = tmp_path / "pairs.csv"
    absolute = tmp_path / "elsewhere.png"
    file.write_text(f"{header}a.png,a1.png\na.png, a2.png\n\nb.png,{absolute},scene 7\n", encoding="utf-8")
    first, second, third = pairs_of_table(file, *folders)
    assert (first.before, first.after) == (folders[0] / "a.png", folders[1] / "a1.png")
    # Two versions of one photograph are one scene.
    assert first.group == second.group == "a.png"
    assert (third.after, third.group) == (absolute, "scene 7")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no pairs"),
        (b"before,after\n", "has no pairs"),
        (b"a.png\n", "line 1 of .*'a.png'"),
        (b"a.png,b.png\nc.png,,x\n", "line 2 of"),
        (b"a,b,c,d\n", "line 1 of"),
        (b"a.png,b.png\na.png,c.png\na.png,b.png\n", "a.png,b.png is listed twice"),
        (b"\xff\xfe\x00a", "no CSV of text in UTF-8"),
    ],
)
def test_tables_that_are_none_are_refused(folders: tuple[Path, Path], tmp_path: Path, content: bytes, message: str):
    (tmp_path / "pairs.csv").write_bytes(content)
    with pytest.raises(PocketiqaError, match=message):
        pairs_of_table(tmp_path / "pairs.csv", *folders)
    with pytest.raises(PocketiqaError, match=r"nothing\.csv cannot be read"):
        pairs_of_table(tmp_path / "nothing.csv", *folders)
