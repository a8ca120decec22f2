import os
from pathlib import Path

import pytest

from distill.scoring.inputs import Reading, find_inputs
from distill.scoring.transfers import Planned, Transfer
from pseudo_labels.errors import OutputConflictError, PocketiqaError, StorageFullError
from pseudo_labels.moves import JOURNAL, undo
from tests.helpers.containers import IMAGES, structs, write_files, write_parquet, write_tar
from tests.helpers.tmpfs import small_disk


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, ["a/1.png", "a/2.png", "b/1.png"])
    os.utime(tmp_path / "a/2.png", ns=(1, 10**18 + 7))
    return tmp_path


def carry(kind: str, *words: str, folder: str = "out") -> list[Planned]:
    images = find_inputs(words, Reading(recursive=True), print).images
    transfer = Transfer(kind, Path(folder))  # type: ignore[arg-type]
    transfer.check(images)
    return transfer.carry_out(transfer.plan(images))


def names(folder: str = "out") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_copies_have_content_and_time_and_are_made_once(here: Path):
    carry("copy", "a")
    assert names() == ["1.png", "2.png"]
    assert (here / "out/2.png").read_bytes() == IMAGES[1]
    assert (here / "out/2.png").stat().st_mtime_ns == 10**18 + 7
    assert [one.there for one in carry("copy", "a")] == [True, True]
    assert names() == ["1.png", "2.png"]


@pytest.mark.parametrize("kind", ["copy", "move", "link"])
def test_names_that_collide_get_another_that_stays_the_same(here: Path, kind: str):
    done = carry(kind, "a", "b")
    both = [one.target.name for one in done if one.image.name != "a/2.png"]
    assert [name[:2] + name[-4:] for name in both] == ["1~.png"] * 2
    assert len(set(both)) == 2
    assert [one.target.read_bytes() for one in done] == IMAGES[:3]
    if kind != "move":
        assert [one.target for one in carry(kind, "b", "a")] == [done[2].target, *(one.target for one in done[:2])]
        assert names() == sorted(one.target.name for one in done)


@pytest.mark.parametrize("kind", ["copy", "move", "link"])
def test_a_file_that_is_there_is_never_replaced(here: Path, kind: str):
    write_files(here, ["out/other.png"])
    (here / "out/1.png").write_bytes(b"mine")
    (done,) = carry(kind, "a/1.png")
    assert done.target.name.startswith("1~")
    assert (here / "out/1.png").read_bytes() == b"mine"
    assert done.target.read_bytes() == IMAGES[0]
    # That name is taken as well: refused, and said.
    write_files(here, ["a/1.png"])
    done.target.unlink()
    done.target.write_bytes(b"mine too")
    (done,) = carry(kind, "a/1.png")
    assert done.refused.endswith("exists already and is another file")
    assert done.target.read_bytes() == b"mine too"
    assert (here / "a/1.png").read_bytes() == IMAGES[0]


def test_moves_go_back_and_take_their_sidecars_along(here: Path):
    (here / "a/1.png.xmp").write_text("stars")
    carry("move", "a", "b")
    assert not (here / "a/1.png.xmp").exists()
    assert sum(name.endswith(".png.xmp") for name in names()) == 1
    assert JOURNAL in names()
    assert undo(here / "out").refused == ()
    assert sorted(str(path.relative_to(here)) for path in here.rglob("*.*")) == [
        "a/1.png",
        "a/1.png.xmp",
        "a/2.png",
        "b/1.png",
    ]


def test_a_move_that_was_killed_is_finished_under_the_same_name(here: Path):
    carry("move", "a/1.png")
    os.link(here / "out/1.png", here / "a/1.png")  # between the new name and the end of the old one
    (done,) = carry("move", "a/1.png")
    assert done.target == Path("out/1.png")
    assert not (here / "a/1.png").exists()
    assert names() == ["1.png", JOURNAL]


def test_an_equal_file_elsewhere_is_no_reason_to_remove_one(here: Path):
    write_files(here, ["out/1.png"])
    (done,) = carry("move", "a/1.png")
    assert done.target.name.startswith("1~")
    assert len(names()) == 3


def test_links_lead_to_the_file_from_anywhere(here: Path):
    carry("link", "a/1.png")
    assert os.readlink(here / "out/1.png") == str(here / "a/1.png")
    assert [one.there for one in carry("link", "a/1.png")] == [True]
    # A link itself is not moved: what it is relative to would change.
    (done,) = carry("move", "out/1.png", folder="other")
    assert "is a symbolic link, which is not moved" in done.refused


def test_a_folder_into_itself_changes_nothing(here: Path):
    assert [one.there for one in carry("move", "a", folder="a")] == [True, True]
    assert names("a") == ["1.png", "2.png"]


def test_members_are_written_as_files_and_cannot_be_moved(here: Path):
    write_tar(here / "x.tar", [("../../up.png", IMAGES[0]), ("d/1.png", IMAGES[1])])
    write_parquet(here / "t.parquet", structs(IMAGES[:2]))
    carry("copy", "x.tar", "t.parquet")
    assert names() == ["1.png", "t-0.png", "t-1.png", "up.png"]
    assert (here / "out/t-1.png").read_bytes() == IMAGES[1]
    assert all(one.there for one in carry("copy", "x.tar", "t.parquet"))
    for kind in ("move", "link"):
        with pytest.raises(
            PocketiqaError, match=rf"no file of its own, so it cannot be {kind.rstrip('e')}ed.*--copy-to"
        ):
            carry(kind, "x.tar")


def test_what_cannot_be_done_is_said_and_the_rest_is_done(here: Path):
    images = find_inputs(["a"], Reading(), print).images
    transfer = Transfer("copy", Path("out"))
    plan = transfer.plan(images)
    (here / "a/1.png").unlink()
    lost, copied = transfer.carry_out(plan)
    assert "does not exist" in lost.refused
    assert copied.refused == ""
    assert names() == ["2.png"]
    with pytest.raises(OutputConflictError, match="is a file, but a folder is needed"):
        carry("copy", "b", folder="a/2.png")


def test_a_full_disk_stops_it(here: Path):
    (here / "a/1.png").write_bytes(bytes(300_000))
    with small_disk(here / "disk", kib=64), pytest.raises(StorageFullError):
        carry("copy", "a/1.png", folder="disk/out")
