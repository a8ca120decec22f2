import os
from pathlib import Path

import pytest

from pseudo_labels.sources import list_sources
from students.paths import find_images


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "b" / "deep").mkdir(parents=True)
    (root / "a.jpg").mkdir()
    for name in ("2.PNG", "1.jpg", "notes.txt", "b/3.webp", "b/deep/4.heic", "a.jpg/5.tif", "line\nbreak 'ü.jpg"):
        (root / name).write_bytes(b"x")
    (root / "lost.jpg").symlink_to(root / "nowhere")
    (root / "lost folder").symlink_to(root / "nowhere")
    (root / "b" / "loop").symlink_to(root)
    (root / "b" / "self.jpg").symlink_to(root / "b" / "self.jpg")
    return root


def _names(root: Path, files: list[Path]) -> list[str]:
    return [str(path.relative_to(root)) for path in files]


def test_folder_without_recursion(tree: Path) -> None:
    expected = ["1.jpg", "2.PNG", "a.jpg", "line\nbreak 'ü.jpg", "lost folder", "lost.jpg"]
    assert _names(tree, find_images([tree])) == expected


def test_recursion_ends_and_finds_what_a_pool_finds(tree: Path) -> None:
    files = find_images([tree], recursive=True)
    below = ["a.jpg/5.tif", "b/3.webp", "b/self.jpg", "b/deep/4.heic", "b/loop"]
    assert _names(tree, files) == [*_names(tree, find_images([tree])), *below]
    addresses = {entry.address for entry in list_sources([str(tree)]).entries}
    assert len(addresses) == len(files)


def test_files_are_kept_as_named_and_come_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    given = ["missing.jpg", "notes.txt", "2.PNG", tree / "2.PNG", "b/../2.PNG", ".", "b", "b"]
    files = find_images(given)
    assert files[:3] == [Path("missing.jpg"), Path("notes.txt"), Path("2.PNG")]
    assert [path.name for path in files].count("2.PNG") == 1
    assert [path.name for path in files].count("3.webp") == 1


def test_two_links_to_one_folder_are_entered_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "1.jpg").write_bytes(b"x")
    for name in ("a", "z"):
        (tmp_path / name).symlink_to(tmp_path / "real")
    assert find_images([tmp_path], recursive=True) == [tmp_path / "real" / "1.jpg"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_folder_that_cannot_be_listed_is_returned(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        assert find_images([tmp_path], recursive=True) == [closed]
    finally:
        closed.chmod(0o700)
