import io
import os
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pseudo_labels import addresses, images
from pseudo_labels.images import ImageError
from pseudo_labels.records import Status


def archive_of(path: Path, members: dict[str, bytes]) -> dict[str, tuple[int, int]]:
    """Write an uncompressed tar; offset and size of the data of each member."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    with tarfile.open(path) as archive:
        return {member.name: (member.offset_data, member.size) for member in archive}


def test_a_path_is_its_own_address_and_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a b%20.png").write_bytes(b"bytes")
    monkeypatch.chdir(tmp_path)
    address = addresses.of_path("a b%20.png")
    assert address == f"{tmp_path}/a b%20.png"
    assert addresses.local_path(address) == tmp_path / "a b%20.png"
    assert addresses.read(address) == b"bytes"


def test_a_link_keeps_its_own_name(tmp_path: Path):
    (tmp_path / "real.png").write_bytes(b"x")
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    assert addresses.of_path(tmp_path / "link.png") == str(tmp_path / "link.png")


def test_bytes_that_are_not_utf8_come_back_exactly():
    name = b"/d\xff/caf\xe9 #1?.jpg"
    address = addresses.of_path(os.fsdecode(name))
    assert address == "file://%2Fd%FF%2Fcaf%E9%20%231%3F.jpg"
    path = addresses.local_path(address)
    assert path is not None
    assert os.fsencode(path) == name


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("images/0.png", "/base/images/0.png"),
        ("/abs/0.png", "/abs/0.png"),
        ("/odd://name.png", "/odd:/name.png"),  # pathlib joins two slashes into one
        ("tar://a.png?offset=0&size=1::/x.tar", None),
        ("parquet:///rows.parquet#3", None),
        ("s3://bucket/a.png", None),
    ],
)
def test_only_files_have_a_local_path(address: str, expected: str | None):
    path = addresses.local_path(address, Path("/base"))
    assert path == (None if expected is None else Path(expected))


def test_names_are_for_people():
    member = addresses.of_member("/data/x.tar", "dir/a?b.jpg", 512, 9)
    assert addresses.name_of(member) == "a?b.jpg"
    assert addresses.name_of(addresses.of_row("parquet", "/data/rows.parquet", 12)) == "rows.parquet#12"
    assert addresses.name_of("/data/é.png") == "é.png"


def test_members_are_read_by_offset_and_size(tmp_path: Path):
    members = {"dir/one.png": b"first", "é?&::.png": b"second bytes"}
    positions = archive_of(tmp_path / "x.tar", members)
    for name, data in members.items():
        address = addresses.of_member(str(tmp_path / "x.tar"), name, *positions[name])
        assert addresses.read(address) == data
        assert addresses.name_of(address) == name.rsplit("/", 1)[-1]
    system = fsspec.filesystem("memory")
    system.pipe_file("/addresses/x.tar", (tmp_path / "x.tar").read_bytes())
    remote = addresses.of_member("memory://addresses/x.tar", "dir/one.png", *positions["dir/one.png"])
    assert addresses.read(remote) == b"first"


def test_rows_are_read_by_number(tmp_path: Path):
    pq.write_table(pa.table({"image": [b"zero", b"one", None]}), tmp_path / "rows.parquet")
    table = str(tmp_path / "rows.parquet")
    assert addresses.read(addresses.of_row("parquet", table, 1)) == b"one"
    for row, reason in [(2, "holds no image bytes"), (3, "no row 3: the table has 3 rows")]:
        with pytest.raises(ImageError, match=reason) as caught:
            addresses.read(addresses.of_row("parquet", table, row))
        assert caught.value.status == Status.MISSING


def test_what_cannot_be_read_has_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    positions = archive_of(tmp_path / "x.tar", {"empty.png": b"", "a.png": b"12345678"})
    archive = str(tmp_path / "x.tar")
    end = (tmp_path / "x.tar").stat().st_size
    monkeypatch.setattr(images, "MAX_BYTES", 6)
    cases = [
        (str(tmp_path / "gone.png"), Status.MISSING, "no such file"),
        (addresses.of_member(archive, "empty.png", *positions["empty.png"]), Status.EMPTY, "zero bytes"),
        (addresses.of_member(archive, "cut.png", end - 2, 5), Status.UNREADABLE, "ends before this member does"),
        (addresses.of_member(archive, "a.png", *positions["a.png"]), Status.TOO_LARGE, "8 bytes, above the limit of 6"),
        ("memory://addresses/gone.png", Status.MISSING, "no such file"),
    ]
    for address, status, reason in cases:
        with pytest.raises(ImageError, match=reason) as caught:
            addresses.read(address)
        assert caught.value.status == status, address
