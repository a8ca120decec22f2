import os
from pathlib import Path

import pytest

from distill.scoring.inputs import ImageSource
from distill.scoring.sidecars import Sidecars, plain_stars, sidecar_of
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.records import Status
from pseudo_labels.xmp import Judgement, new_sidecar
from students.runtime import Row
from tests.helpers.containers import write_files
from tests.pseudo_labels.test_xmp import OWN, XMP, properties, sidecar

MODEL = ("pocket-m", "ab" * 32)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, ["a.jpg", "a.png", "b.jpg"])
    return [
        Row("a.jpg", 0.95, Status.OK, ""),
        Row("a.png", 0.3, Status.OK, ""),
        Row("b.jpg", None, Status.CORRUPT, "cut"),
    ]


def rating(name: str) -> list[str]:
    return properties(Path(name).read_bytes())[f"{XMP}Rating"]


def test_stars_are_fifths_of_the_scale():
    scores = [0.0, 0.1999, 0.2, 0.5, 0.7999, 0.8, 1.0]
    assert [plain_stars(score) for score in scores] == [1, 1, 2, 3, 4, 5, 5]


def test_one_beside_each_photograph_with_a_score_and_the_photograph_untouched(rows: list[Row]):
    before = {name: (Path(name).read_bytes(), os.stat(name).st_mtime_ns) for name in os.listdir()}
    written = Sidecars().write(rows, MODEL, dry_run=True)
    assert (written.new, os.listdir()) == (2, list(before))
    assert Sidecars().write(rows, MODEL) == written
    assert sorted(os.listdir()) == ["a.jpg", "a.jpg.xmp", "a.png", "a.png.xmp", "b.jpg"]
    assert {name: (Path(name).read_bytes(), os.stat(name).st_mtime_ns) for name in before} == before
    assert (rating("a.jpg.xmp"), rating("a.png.xmp")) == (["5"], ["2"])
    assert Sidecars().write(rows, MODEL, lambda row: 4).merged == 2
    assert rating("a.jpg.xmp") == ["4"]


def test_sidecars_that_exist_are_merged_kept_or_refused(rows: list[Row]):
    Path("a.jpg.xmp").write_bytes(sidecar("xap:Rating='2'"))
    images = [ImageSource(row.path, Path(row.path)) for row in rows]
    with pytest.raises(OutputConflictError, match=r"1 sidecars exist already, a.jpg.xmp for one: add --xmp-existing"):
        Sidecars("refuse").check(images)
    kept = Sidecars("keep").write(rows, MODEL)
    assert (kept.new, kept.kept, kept.merged) == (1, 1, 0)
    assert Path("a.jpg.xmp").read_bytes() == sidecar("xap:Rating='2'")
    assert Sidecars("merge").write(rows, MODEL).merged == 2
    assert rating("a.jpg.xmp") == ["2"]
    assert properties(Path("a.jpg.xmp").read_bytes())[f"{OWN}Score"] == ["0.950000"]


def test_what_cannot_be_merged_is_said_and_stays(rows: list[Row]):
    Path("a.jpg.xmp").write_bytes(b"my notes")
    os.symlink("elsewhere", "a.png.xmp")
    written = Sidecars().write(rows, MODEL)
    assert (written.new, written.merged) == (0, 0)
    (first, second) = written.refused
    assert first[0] == "a.jpg"
    assert "a.jpg.xmp: it is no XML" in first[1]
    assert "is a symbolic link" in second[1]
    assert Path("a.jpg.xmp").read_bytes() == b"my notes"
    assert os.readlink("a.png.xmp") == "elsewhere"
    assert not os.path.exists("elsewhere")


def test_members_of_archives_have_none():
    with pytest.raises(PocketiqaError, match="no sidecar can lie beside it: leave out --xmp"):
        Sidecars().check([ImageSource("tar://a.png?offset=1&size=2::/x.tar", Path("x.tar"), bytes)])
    assert sidecar_of(Path("d/a.b.jpg")) == Path("d/a.b.jpg.xmp")
    assert new_sidecar(Judgement(0.5, 3, *MODEL)).startswith(b"<?xpacket")
