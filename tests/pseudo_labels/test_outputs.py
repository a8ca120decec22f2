"""Output folders: what may be mixed, resumed or replaced, and what is refused."""

from pathlib import Path

import pytest

from pseudo_labels import outputs
from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError
from pseudo_labels.files import canonical_json
from pseudo_labels.outputs import Claim, Manifest, claim, differences, finish, read_manifest, start_over, write_manifest

SPEC = {"seed": 1, "limits": {"side": 64, "names": ["a", "b"]}}


def test_a_folder_is_new_then_resumed_then_done(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    assert claim(out, "pool", SPEC, notes={"host": "x"}) == Claim.NEW
    assert claim(out, "pool", SPEC) == Claim.RESUME
    done = finish(out, {"rows": 3})
    assert claim(out, "pool", SPEC, notes={"host": "y"}) == Claim.DONE
    assert done == read_manifest(out) == Manifest("pool", SPEC, True, {"rows": 3}, {"host": "x"})


def test_an_empty_folder_may_be_taken(tmp_path: Path) -> None:
    assert claim(tmp_path, "pool", SPEC) == Claim.NEW


def test_another_spec_is_refused_with_what_differs(tmp_path: Path) -> None:
    claim(tmp_path, "pool", SPEC)
    with pytest.raises(OutputConflictError, match=r"limits\.side: 64 -> 32; seed: 1 -> 2\).*--overwrite"):
        claim(tmp_path, "pool", {"seed": 2, "limits": {"side": 32, "names": ["a", "b"]}})
    with pytest.raises(OutputConflictError, match="already holds 'pool', not 'labels'"):
        claim(tmp_path, "labels", SPEC)
    assert read_manifest(tmp_path).spec == SPEC


def test_strangers_files_are_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    for overwrite, message in ((False, "not written by pocketiqa"), (True, "--overwrite will not remove it")):
        with pytest.raises(OutputConflictError, match=message):
            claim(tmp_path, "pool", SPEC, overwrite=overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "years"


def test_overwrite_starts_over_but_follows_no_link(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    claim(out, "pool", SPEC)
    finish(out, {})
    (out / "sub").mkdir()
    (out / "sub/a").touch()
    (out / "link").symlink_to(elsewhere)
    assert claim(out, "labels", {"other": 1}, overwrite=True) == Claim.NEW
    assert [path.name for path in out.iterdir()] == ["manifest.json"]
    assert (elsewhere / "kept").exists()
    start_over(tmp_path / "nowhere")


def test_digest_follows_kind_spec_and_content_but_not_notes() -> None:
    base = Manifest("pool", SPEC, True, {"rows": 3}, {"host": "x"})
    others = [
        Manifest("labels", SPEC, True, {"rows": 3}),
        Manifest("pool", {"seed": 2}, True, {"rows": 3}),
        Manifest("pool", SPEC, True, {"rows": 4}),
    ]
    assert len({manifest.digest for manifest in (base, *others)}) == 4
    assert Manifest("pool", SPEC, True, {"rows": 3}, {"host": "y"}).digest == base.digest


def test_differences_are_dotted_and_short() -> None:
    assert differences({"a": {"b": 1, "c": [2]}, "d": 3}, {"a": {"b": 1, "c": [4]}, "e": 5}) == [
        "a.c: [2] -> [4]",
        "d: 3 -> None",
        "e: None -> 5",
    ]
    assert differences(SPEC, dict(SPEC)) == []
    (line,) = differences({"a": "x" * 100}, {"a": "y"})
    assert len(line) < 60


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"{", IntegrityError, "not valid JSON"),
        (b"[]", PocketiqaError, "was not written by pocketiqa"),
        (b'{"kind": "pool"}', PocketiqaError, "format version None"),
        (canonical_json({"format": 99, "kind": "pool"}), PocketiqaError, "format version 99.*upgrade pocketiqa"),
    ],
)
def test_odd_manifests_are_refused(tmp_path: Path, content: bytes, error: type[Exception], message: str) -> None:
    (tmp_path / outputs.MANIFEST).write_bytes(content)
    with pytest.raises(error, match=message):
        read_manifest(tmp_path)


def test_another_kind_is_named(tmp_path: Path) -> None:
    write_manifest(tmp_path, Manifest("run", {}))
    with pytest.raises(PocketiqaError, match="holds 'run', but 'pool' is needed here"):
        read_manifest(tmp_path, "pool")
    with pytest.raises(PocketiqaError, match="no pool manifest at"):
        read_manifest(tmp_path / "nowhere", "pool")


def test_a_file_where_a_folder_is_needed_is_a_readable_error(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    for action in (
        lambda path: claim(path, "pool", {}),
        lambda path: claim(path, "pool", {}, overwrite=True),
        lambda path: read_manifest(path, "pool"),
    ):
        with pytest.raises(PocketiqaError, match=r"photo\.jpg"):
            action(tmp_path / "photo.jpg")


def test_a_claim_that_was_killed_can_be_repeated(tmp_path: Path) -> None:
    # What a SIGKILL inside the very first write_manifest leaves behind.
    (tmp_path / ".manifest.json.4711.tmp").write_bytes(b'{"format"')
    assert claim(tmp_path, "pool", SPEC) == Claim.NEW


def test_a_manifest_without_its_parts_is_tampered(tmp_path: Path) -> None:
    (tmp_path / outputs.MANIFEST).write_bytes(canonical_json({"format": outputs.FORMAT, "kind": "pool"}))
    with pytest.raises(PocketiqaError):
        read_manifest(tmp_path)


def test_a_spec_with_tuples_equals_itself(tmp_path: Path) -> None:
    spec = {"background": (255, 255, 255)}
    claim(tmp_path, "pool", spec)
    assert claim(tmp_path, "pool", spec) == Claim.RESUME
