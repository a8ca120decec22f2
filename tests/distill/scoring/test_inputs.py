import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.scoring.inputs import ImageSource, Reading, find_inputs
from distill.scoring.score_paths import score_paths
from pseudo_labels.downloads import Downloads
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import decode
from students.runtime import Scorer
from tests.helpers.containers import IMAGES, structs, write_files, write_parquet, write_tar
from tests.helpers.rows import read_rows
from tests.helpers.web import Answer, serving
from tests.test_architecture import HEAVY, ROOT


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*words: str, notes: list[str] | None = None, **reading: object) -> list[str]:
    warn = (notes if notes is not None else []).append
    return [image.name for image in find_inputs(words, Reading(**reading), warn).images]  # type: ignore[arg-type]


def test_files_folders_and_patterns_each_once_in_order(here: Path):
    write_files(here, ["b.png", "a.png", "in/c.png", "in/deep/d.png", "in/deep/@eaDir/e.png", "in/[x].png"])
    assert names("b.png", "in", "./b.png") == ["b.png", "in/[x].png", "in/c.png"]
    assert names("*.png") == ["a.png", "b.png"]
    assert names("in/**/*.png") == ["in/[x].png", "in/c.png", "in/deep/d.png"]
    assert names("in/[cx].png", "in/[x].png") == ["in/c.png", "in/[x].png"]  # a file of that very name is meant
    assert names("in/deep/@eaDir/*.png") == ["in/deep/@eaDir/e.png"]
    notes: list[str] = []
    names("in/**/*.png", notes=notes)
    assert notes == [
        "images left out by rule: 1 of @eaDir; they are copies and leftovers of other programs, and read only where "
        "they are named themselves"
    ]
    assert names("i*", recursive=True) == names("in", recursive=True) == ["in/[x].png", "in/c.png", "in/deep/d.png"]
    found_nothing = find_inputs(["*.jpg", "none.jpg"], Reading(), notes.append)
    assert [image.name for image in found_nothing.images] == ["none.jpg"]
    assert found_nothing.empty == ["nothing matches the pattern '*.jpg': check it, and what it is relative to"]


class Stdin:
    def __init__(self, data: bytes):
        self.buffer = io.BytesIO(data)


@pytest.mark.parametrize(
    ("data", "null", "expected"),
    [
        (b"a.png\nb c.png\n", False, ["a.png", "b c.png"]),
        (b"\xef\xbb\xbfa.png\r\n\r\nb c.png\r\n", False, ["a.png", "b c.png"]),
        (b"a.png\n*.png", False, ["a.png", "*.png"]),
        (b"a\nb.png\0c.png\0", True, ["a\nb.png", "c.png"]),
        (b"a\xff.png", False, ["a\udcff.png"]),
        (b"a.png\r\nodd\r.png\n", False, ["a.png\r", "odd\r.png"]),
        (b"@list\n-\n", False, ["@list", "-"]),
    ],
)
@pytest.mark.parametrize("word", ["-", "@list.txt"])
def test_lists_hold_paths_as_they_are(
    here: Path, monkeypatch: pytest.MonkeyPatch, word: str, data: bytes, null: bool, expected: list[str]
):
    (here / "list.txt").write_bytes(data)
    monkeypatch.setattr(sys, "stdin", Stdin(data))
    assert names(word, null=null) == expected


def test_lists_that_cannot_be_read_are_errors(here: Path):
    (here / "null").write_bytes(b"a.png\0b.png\0")
    (here / "lines").write_bytes(b"a.png\nb.png\n")
    (here / "empty").touch()
    for words, null, message in (
        (["@none"], False, "the list 'none' cannot be read: the file or its folder does not exist"),
        (["@null"], False, "holds NUL bytes: add --null"),
        (["@lines"], True, "holds no NUL byte, but line ends: leave out --null"),
    ):
        with pytest.raises(PocketiqaError, match=message):
            find_inputs(words, Reading(null=null), print)
    assert find_inputs(["@empty"], Reading(), print).empty == ["the list 'empty' names no image"]
    (here / "@lines").touch()
    assert names("@lines") == ["@lines"]  # a file of this name is meant itself


def test_names_that_are_not_utf8_come_back_from_their_addresses(here: Path):
    odd = os.fsdecode(b"\xe9 a.png")
    write_files(here, [odd])
    score_paths([odd], "pocket-s", out=here / "x.csv")
    address = read_rows(here / "x.csv", "csv")[0]["path"]
    assert address.startswith("file://")
    assert names(address) == [str(here / odd)]
    with pytest.raises(PocketiqaError, match="file:///FOLDER/FILE is needed"):
        names("file://a.png")


def test_archives_and_tables_give_the_scores_of_their_files(here: Path):
    files = [f"{number}.png" for number in range(4)]
    write_files(here / "files", files)
    write_tar(here / "x.tar", [*zip(files, IMAGES, strict=False), ("0.txt", b"words")])
    write_parquet(here / "t.parquet", structs(IMAGES[:4]))
    score_paths(["files", "x.tar", "t.parquet"], "pocket-s", out=here / "x.jsonl", workers=2)
    rows = read_rows(here / "x.jsonl", "jsonl")
    assert [row["status"] for row in rows] == ["ok"] * 12
    assert [row["score"] for row in rows[:4]] == [row["score"] for row in rows[4:8]]
    assert [row["score"] for row in rows[:4]] == [row["score"] for row in rows[8:]]
    # The addresses of the rows name the images again, also in a list.
    (here / "again.txt").write_text("\n".join(row["path"] for row in rows[4:]))
    score_paths(["@again.txt"], "pocket-s", out=here / "y.jsonl")
    assert read_rows(here / "y.jsonl", "jsonl") == rows[4:]


def test_archives_with_faults(here: Path):
    write_tar(here / "x.tar", [("a.png", IMAGES[0]), ("b.png", b""), ("../../c.png", IMAGES[1])])
    whole = (here / "x.tar").read_bytes()
    (here / "x.tar").write_bytes(whole[: len(whole) - 11000])
    score_paths(["x.tar"], "pocket-s", out=here / "x.csv")
    rows = read_rows(here / "x.csv", "csv")
    assert [row["status"] for row in rows][:2] == ["ok", "empty"]
    assert rows[-1]["status"] in ("corrupt", "unreadable")
    (here / "no.tar").write_bytes(b"not a tar" * 100)
    (here / "x.tar.gz").touch()
    for name, message in (("no.tar", "is no uncompressed tar"), ("x.tar.gz", "decompress it to .tar")):
        with pytest.raises(PocketiqaError, match=message):
            names(name)
    write_tar(here / "words.tar", [("a.txt", b"words")])
    assert find_inputs(["words.tar"], Reading(), print).empty == ["no images in words.tar"]
    for address in ("tar://a.png?size=1::x.tar", "s3://bucket/a.png", "nonsense://x"):
        with pytest.raises(PocketiqaError, match=r"are needed|addresses are http"):
            names(address)


def test_resume_knows_members_and_rescoring_follows_the_archive(here: Path, monkeypatch: pytest.MonkeyPatch):
    write_tar(here / "x.tar", [("a.png", IMAGES[0]), ("b.png", IMAGES[1])])
    write_files(here, ["c.png"])
    score_paths(["x.tar", "c.png"], "pocket-s", out=here / "x.csv", resume=True)
    scored: list[str] = []
    row = Scorer.row
    monkeypatch.setattr(
        Scorer, "row", lambda self, path, read=None: (scored.append(path.name), row(self, path, read))[1]
    )
    score_paths(["c.png"], "pocket-s", out=here / "x.csv", resume=True)
    assert (scored, len(read_rows(here / "x.csv", "csv"))) == ([], 3)
    write_tar(here / "x.tar", [("b.png", IMAGES[2])])
    score_paths(["c.png", "x.tar"], "pocket-s", out=here / "x.csv", resume=True)
    assert [name.partition("?")[0] for name in scored] == ["tar://b.png"]


def test_the_web_is_asked_only_if_allowed(here: Path):
    pages: dict[str, bytes | Answer] = {"/a.png": IMAGES[0], "/large.png": IMAGES[1] + bytes(5000)}
    with serving(pages) as server:
        with pytest.raises(PocketiqaError, match="nothing is fetched unasked: add --allow-remote"):
            score_paths([f"{server}/a.png"], "pocket-s", out=None)
        largest = Downloads(max_bytes=len(IMAGES[0]) + 1000)
        words = [f"{server}/{name}" for name in ("a.png", "none.png", "large.png")]
        score_paths(words, "pocket-s", out=here / "x.csv", reading=Reading(downloads=largest), resume=True)
        rows = read_rows(here / "x.csv", "csv")
        assert [row["status"] for row in rows] == ["ok", "missing", "too_large"]
        assert [row["path"] for row in rows] == words
        assert float(rows[0]["score"]) == pytest.approx(Scorer("pocket-s").score(decode(IMAGES[0])).score, abs=1e-6)
        # What is on the web may change unseen: it is fetched again.
        pages["/a.png"] = IMAGES[2]
        score_paths(words[:1], "pocket-s", out=here / "x.csv", reading=Reading(downloads=largest), resume=True)
        assert read_rows(here / "x.csv", "csv")[0]["score"] != rows[0]["score"]


@pytest.mark.parametrize(
    ("source", "place"),
    [
        (ImageSource("p/a.png", Path("p/a.png")), "p/a.png"),
        (ImageSource("tar://d/a%20b.png?offset=1&size=2::/x", Path("x.tar"), bytes), "x.tar/d/a b.png"),
        (ImageSource("tar://..%2F..%2Fa.png?offset=1&size=2::/x", Path("x.tar"), bytes), "x.tar/a.png"),
        (ImageSource("tar://%2Fetc%2Fpasswd?offset=1&size=2::/x", Path("x.tar"), bytes), "x.tar/etc/passwd"),
        (ImageSource("parquet:///d/t.parquet#12", Path("t.parquet"), bytes), "t.parquet/t-12"),
        (ImageSource("https://host:8/d/%2e%2e/a.png?x=1", None, bytes), "host:8/d/a.png"),
        (ImageSource("https://host", None, bytes), "host"),
    ],
)
def test_the_place_of_an_image_never_leaves_its_archive(here: Path, source: ImageSource, place: str):
    assert source.place == here / place


def test_the_base_install_reads_tars_and_says_what_tables_need(here: Path):
    write_tar(here / "x.tar", [("a.png", IMAGES[0])])
    write_parquet(here / "t.parquet", structs(IMAGES[:1]))
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {sorted({*HEAVY} - {"pydantic"})!r}:  # which typer brings along
            raise ModuleNotFoundError(f"not in the base install: {{name}}", name=name)
sys.meta_path.insert(0, Refuse())
from distill.cli import main
sys.argv[1:] = ["score", *sys.argv[1:], "--model", "pocket-s", "--format", "csv"]
main()
"""
    ends = []
    for word in ("x.tar", "t.parquet"):
        line = [sys.executable, "-c", program, word]
        ends.append(subprocess.run(line, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True))
    assert ends[0].returncode == 0, ends[0].stderr
    assert ends[0].stdout.splitlines()[1].startswith("tar://a.png?offset=512")
    assert ends[1].returncode == 1
    assert "'t.parquet' is a table of images, which needs the package" in ends[1].stderr
    assert "[tables]" in ends[1].stderr
