"""Output folders and files: what may be mixed, resumed or replaced, and what is refused."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from pseudo_labels import outputs
from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError, StorageFullError, WriteError
from pseudo_labels.files import canonical_json, private_file, staged_folder, write_atomic
from pseudo_labels.outputs import (
    Claim,
    Manifest,
    claim,
    differences,
    finish,
    new_file,
    read_manifest,
    start_over,
    write_manifest,
)
from pseudo_labels.remote import location
from tests.helpers.records import alter
from tests.helpers.tmpfs import small_disk

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


@pytest.mark.parametrize("name", ["s3://bucket/labels", "gs://b/x.csv", "memory://x", "S3:/bucket"])
def test_an_address_is_refused_and_makes_no_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    address = "//".join(Path(name).as_posix().split("/", 1))
    for taken in (lambda: outputs.exclusively(Path(name)), lambda: outputs.new_file(Path(name))):
        with pytest.raises(WriteError, match=f"^{address} is an address.*absolute path"), taken():
            pass
    with pytest.raises(WriteError, match="is an address"):
        outputs.claim(Path(name), "labels", {})
    assert list(tmp_path.iterdir()) == []
    # One that is there, or is named in full, is a path.
    with outputs.new_file(tmp_path / "s3:" / "a.csv") as file:
        file.write(b"x")
    with outputs.new_file(Path("s3:/b.csv")) as file:
        file.write(b"x")
    assert sorted(path.name for path in (tmp_path / "s3:").iterdir()) == ["a.csv", "b.csv"]


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


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_appears_whole_and_alone(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "x.csv"
    with new_file(out) as file:
        file.write(b"one,")
        assert not out.exists()
        file.write(b"two")
    assert out.read_bytes() == b"one,two"
    assert names(out.parent) == ["x.csv"]
    with pytest.raises(OutputConflictError, match=r"x\.csv exists already.*--overwrite"), new_file(out):
        raise AssertionError("work was begun")
    out.chmod(0o600)
    with new_file(out, overwrite=True) as file:
        file.write(b"three")
    assert out.read_bytes() == b"three"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with new_file(None) as file:
        file.write(b"nowhere")


def half_written(out: Path, error: type[BaseException], *, overwrite: bool = False) -> None:
    with new_file(out, overwrite=overwrite) as file:
        file.write(b"half")
        raise error


def test_a_new_file_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error):
            half_written(tmp_path / "made" / "for" / "x.csv", error)
        assert names(tmp_path) == []
    (tmp_path / "y.csv").write_text("earlier")
    with pytest.raises(ZeroDivisionError):
        half_written(tmp_path / "y.csv", ZeroDivisionError, overwrite=True)
    assert (tmp_path / "y.csv").read_text() == "earlier"
    assert names(tmp_path) == ["y.csv"]


def test_a_file_in_work_is_refused_to_others(tmp_path: Path) -> None:
    with new_file(tmp_path / "x.csv") as file:
        file.write(b"first")
        with (
            pytest.raises(OutputConflictError, match=r"another process is writing .*x\.csv"),
            new_file(tmp_path / "x.csv", overwrite=True),
        ):
            raise AssertionError("two writers")
        with new_file(tmp_path / "y.csv") as other:
            other.write(b"another name")
    assert (tmp_path / "x.csv").read_bytes() == b"first"
    assert names(tmp_path) == ["x.csv", "y.csv"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appeared_or_changed_meanwhile_is_not_replaced(tmp_path: Path, overwrite: bool) -> None:
    out = tmp_path / "x.csv"
    if overwrite:
        out.write_text("earlier")

    def write() -> None:
        with new_file(out, overwrite=overwrite) as file:
            file.write(b"ours")
            out.write_text("of another program")

    with pytest.raises(OutputConflictError, match="appeared or changed while this command was working"):
        write()
    assert out.read_text() == "of another program"
    assert names(tmp_path) == ["x.csv"]


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("behind the link")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "nowhere").symlink_to("missing")
    kinds = {"pipe": "a pipe", "folder": "a folder", "link": "a symbolic link", "nowhere": "a symbolic link"}
    before = names(tmp_path)
    for name, kind in {**kinds, "/dev/null": "a device"}.items():
        for overwrite in (False, True):
            with (
                pytest.raises(WriteError, match=f"{name} is {kind} and no regular file"),
                new_file(tmp_path / name, overwrite=overwrite),
            ):
                raise AssertionError("work was begun")
    assert names(tmp_path) == before
    with pytest.raises(WriteError, match="is a device"):
        write_atomic(Path("/dev/null"), b"data")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_leftovers_of_killed_writers_of_the_same_name_are_removed(tmp_path: Path) -> None:
    for name in (".x.csv.4711-abcd.tmp", ".x.csv.lock", ".y.csv.4711-abcd.tmp", ".x.csv.note.tmp"):
        (tmp_path / name).touch()
    with new_file(tmp_path / "x.csv") as file:
        file.write(b"whole")
    # Of another output, and a file of the user's.
    assert names(tmp_path) == [".x.csv.note.tmp", ".y.csv.4711-abcd.tmp", "x.csv"]


def test_a_full_disk_leaves_no_part_of_a_new_file(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kib=128) as disk:
        (disk / "old.csv").write_text("earlier")
        for name in ("old.csv", "new.csv"):
            with pytest.raises(StorageFullError), new_file(disk / name, overwrite=True) as file:
                file.write(bytes(400_000))
        assert names(disk) == ["old.csv"]
        assert (disk / "old.csv").read_text() == "earlier"


def test_names_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    out = tmp_path / ("猫" * 83 + ".csv")  # 253 bytes
    with new_file(out) as file:
        file.write(b"1")
    write_atomic(out, b"2")
    assert names(tmp_path) == [out.name]
    with pytest.raises(WriteError, match="the name is too long"), new_file(tmp_path / ("a" * 300)):
        raise AssertionError("work was begun")


def test_a_folder_in_work_is_refused_to_others_and_not_to_itself(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import sys\nfrom pathlib import Path\nfrom pseudo_labels.outputs import exclusively\n"
        "from pseudo_labels.errors import OutputConflictError\n"
        "try:\n    with exclusively(Path(sys.argv[1])): print('taken')\n"
        "except OutputConflictError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(out)]
    with outputs.exclusively(out), outputs.exclusively(out):
        assert claim(out, "pool", SPEC) == Claim.NEW
        (out / "kept").touch()
        assert claim(out, "pool", SPEC, overwrite=True) == Claim.NEW  # the lock stays
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert printed.startswith("another process is writing")
    assert names(out) == ["manifest.json"]
    with pytest.raises(ZeroDivisionError), outputs.exclusively(tmp_path / "never" / "used"):
        raise ZeroDivisionError
    assert names(tmp_path) == ["out"]


def test_leftovers_in_a_folder_go_but_not_those_of_a_living_process(tmp_path: Path) -> None:
    claim(tmp_path, "labels", SPEC)
    (tmp_path / ".manifest.json.4711-1.tmp").touch()
    (tmp_path / ".shard-00001.4711.staged").mkdir()
    # Killed between the two renames of an exchange: the only copy comes back.
    (tmp_path / ".shard-00002.4711-ab.old.staged").mkdir()
    with (
        staged_folder(tmp_path / "shard-00003") as living,
        private_file(tmp_path / "table") as (file, _),
        outputs.exclusively(tmp_path),
    ):
        assert living.is_dir()
        assert file.is_file()
        assert names(tmp_path) == sorted([".lock", file.name, living.name, "manifest.json", "shard-00002"])


def test_an_altered_manifest_is_refused_and_one_without_a_checksum_is_read(tmp_path: Path) -> None:
    claim(tmp_path, "pool", SPEC)
    alter(tmp_path / "manifest.json", spec={"seed": 2})
    with pytest.raises(IntegrityError, match=r"manifest .*manifest\.json was altered"):
        read_manifest(tmp_path)
    record = json.loads((tmp_path / "manifest.json").read_text())
    del record["checksum"]  # as earlier versions wrote it
    (tmp_path / "manifest.json").write_text(json.dumps(record))
    assert read_manifest(tmp_path).spec == {"seed": 2}


@pytest.mark.parametrize("name", ["spec", "complete", "content", "notes"])
def test_a_manifest_without_a_part_or_with_another_type_is_refused(name: str, tmp_path: Path) -> None:
    claim(tmp_path, "pool", SPEC)
    record = json.loads((tmp_path / "manifest.json").read_text())
    del record["checksum"]  # as earlier versions wrote it
    for changed, message in (({name: 7}, f"has '{name}' of another type"), ({}, f"lacks '{name}'")):
        rest = {key: value for key, value in record.items() if key != name}
        (tmp_path / "manifest.json").write_bytes(canonical_json(rest | changed))
        with pytest.raises(IntegrityError, match=message):
            read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["format", "kind"])
def test_a_message_does_not_repeat_a_value_without_end(name: str, tmp_path: Path) -> None:
    claim(tmp_path, "pool", SPEC)
    record = json.loads((tmp_path / "manifest.json").read_text())
    del record["checksum"]
    (tmp_path / "manifest.json").write_bytes(canonical_json(record | {name: "x" * 100_000}))
    for read in (lambda: read_manifest(tmp_path, "pool"), lambda: claim(tmp_path, "pool", SPEC)):
        with pytest.raises(PocketiqaError, match=r"'x+\.\.\.") as caught:
            read()
        assert len(str(caught.value)) < 1000


def test_an_object_is_put_whole_when_the_work_is_done_and_never_over_another() -> None:
    out, store = location("memory://bucket/exports/student.onnx"), fsspec.filesystem("memory")

    def write(path: Path, *parts: bytes, meanwhile: Callable[[], object] = lambda: None, **options: bool) -> None:
        with new_file(path, objects=True, **options) as file:
            for part in parts:
                file.write(part)
            assert not path.exists() or options
            meanwhile()

    with pytest.raises(ZeroDivisionError):
        write(out, b"half", meanwhile=lambda: 1 // 0)
    assert not out.exists()
    write(out, b"who", b"le")
    assert out.read_bytes() == b"whole"
    with pytest.raises(OutputConflictError, match="exists already"):
        write(out, b"another")
    write(out, b"another", overwrite=True)
    assert out.read_bytes() == b"another"
    with pytest.raises(OutputConflictError, match="objects below it"):
        write(out.parent, b"file")
    late = out.with_name("late.onnx")
    with pytest.raises(OutputConflictError, match="appeared"):
        write(late, b"mine", meanwhile=lambda: store.pipe_file("/bucket/exports/late.onnx", b"theirs"))
    assert late.read_bytes() == b"theirs"
    store.rm("/bucket/exports", recursive=True)
