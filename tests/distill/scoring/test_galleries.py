import base64
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image

from distill.cli import app
from distill.scoring.galleries import small_jpeg
from distill.scoring.inputs import ImageSource
from distill.terminal.console import run_cli
from pseudo_labels.images import DEFAULT_LIMITS
from tests.helpers.containers import write_tar
from tests.helpers.encoders import encode, picture


def pocketiqa(*words: object) -> int:
    return run_cli(app, ["score", *map(str, words), "--model", "pocket-s"])


class _Data(HTMLParser):
    """The text of the element with the rows."""

    text = ""
    inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = ("id", "rows") in attrs

    def handle_data(self, data: str) -> None:
        self.text += data if self.inside else ""


def rows(page: Path) -> list[list[Any]]:
    """Name, score, status, reason, path, address of the file, thumbnail and further columns."""
    parser = _Data()
    parser.feed(page.read_text())
    return json.loads(parser.text)["rows"]


def size(jpeg: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(jpeg)) as image:
        assert image.format == "JPEG"
        return image.size


ODD = "<script>alert('&amp;')</script> %20#?:.png".replace("/", "|")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for number, name in enumerate(("0.png", "1.png", ODD, os.fsdecode(b"\xe9.png"))):
        (tmp_path / "in" / name).write_bytes(encode(picture(number, 320, 200), "PNG"))
    (tmp_path / "in/bad.png").write_bytes(b"no picture")
    return tmp_path


def test_one_file_holds_every_photograph_and_leads_to_its_file(folder: Path):
    assert pocketiqa("in", "--gallery", "out/page.html", "--out", "x.csv") == 1
    assert [path.name for path in (folder / "out").iterdir()] == ["page.html"]
    by_name = {
        os.path.basename(unquote(row[5], errors="surrogateescape")): row for row in rows(folder / "out/page.html")
    }
    assert set(by_name) == set(os.listdir(folder / "in"))
    for name, row in by_name.items():
        target = os.path.normpath(folder / "out" / unquote(row[5], errors="surrogateescape"))
        assert target == str(folder / "in" / name)
        assert row[5].startswith("../in/")
        if name != "bad.png":
            assert 0 < row[1] < 1
            assert size(base64.b64decode(row[6].removeprefix("data:image/jpeg;base64,"))) == (256, 160)
    assert by_name["bad.png"][1:4:2] == [None, rows(folder / "out/page.html")[-1][3] or by_name["bad.png"][3]]
    assert by_name["bad.png"][6] == ""


def test_nothing_in_a_name_becomes_markup_and_nothing_is_loaded_from_elsewhere(folder: Path):
    pocketiqa("in", "--gallery", "page.html")
    text = (folder / "page.html").read_text()
    assert "alert(" in text
    assert "<script>alert" not in text
    assert "http:" not in text
    assert "https:" not in text
    assert len(re.findall("<script", text)) == 2


def test_a_folder_holds_thumbnails_as_files_and_resumes(folder: Path):
    assert pocketiqa("in", "--top", 2, "--gallery", "gal") == 1
    assert sorted(os.listdir("gal")) == ["index.html", "manifest.json", "thumbs"]
    shown = rows(folder / "gal/index.html")
    assert len(shown) == 2
    assert sorted(row[6] for row in shown) == sorted(f"thumbs/{name}" for name in os.listdir("gal/thumbs"))
    assert {size((folder / "gal" / row[6]).read_bytes()) for row in shown} == {(256, 160)}
    assert "chosen from 4" in (folder / "gal/index.html").read_text()
    # As a killed run leaves it: not complete, no page. The thumbnails that are there are not made again.
    manifest = (folder / "gal/manifest.json").read_text()
    assert pocketiqa("in", "--top", 2, "--gallery", "gal") == 1
    assert (folder / "gal/manifest.json").read_text() == manifest


def test_an_earlier_gallery_or_anything_else_is_not_replaced_unasked(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (folder / "page.html").write_text("mine")
    (folder / "mine").mkdir()
    (folder / "mine/a.txt").write_text("mine")
    pocketiqa("in", "--gallery", "gal")
    capsys.readouterr()
    for target, message in (
        ("page.html", "page.html exists already"),
        ("mine", "mine is not empty and is no gallery"),
        ("gal", "gal holds a gallery of other photographs, another choice or another model"),
        ("in/0.png", "is a file: name a page that ends in .html"),
    ):
        assert pocketiqa("in", "--gallery", target, "--sort", "best") == 1
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.out == ""  # before anything was scored
    assert (folder / "page.html").read_text() == "mine"
    assert pocketiqa("in", "--gallery", "gal", "--top", 1, "--overwrite") == 1
    assert len(rows(folder / "gal/index.html")) == 1
    assert len(os.listdir("gal/thumbs")) == 1
    assert pocketiqa("in", "--gallery", "mine", "--overwrite") == 1
    assert os.listdir("mine") == ["a.txt"]


def test_photographs_that_are_moved_are_linked_where_they_will_lie(folder: Path):
    pocketiqa("in", "--bottom", 2, "--move-to", "bad", "--gallery", "page.html")
    for row in rows(folder / "page.html"):
        assert row[5].startswith("./bad/")
        assert (folder / unquote(row[5], errors="surrogateescape")).is_file()


def test_members_of_an_archive_are_shown_without_a_file(folder: Path):
    write_tar(folder / "x.tar", [("a/0.png", (folder / "in/0.png").read_bytes())])
    assert pocketiqa("x.tar", "--gallery", "page.html") == 0
    ((name, _, _, _, path, href, thumbnail, _),) = rows(folder / "page.html")
    assert (name, href) == ("0.png", "")
    assert path.startswith("tar://a%2F0.png" if "%2F" in path else "tar://a/0.png")
    assert thumbnail


def test_a_small_picture_stays_small(folder: Path):
    (folder / "small.png").write_bytes(encode(picture(0, 70, 65), "PNG"))
    assert size(small_jpeg(ImageSource("small.png", Path("small.png")), DEFAULT_LIMITS)) == (70, 65)
