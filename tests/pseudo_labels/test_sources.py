"""Every kind of source, with real files: what is listed, in which order, and that each address can be read again."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import fsspec
import pytest

from pseudo_labels import addresses
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.folders import DECODED_SUFFIXES
from pseudo_labels.images import ImageError
from pseudo_labels.records import Status
from pseudo_labels.sources import list_sources
from tests.helpers.containers import IMAGES, structs, write_all_kinds, write_files, write_parquet, write_tar

NAMED = [(f"{number}.png", data) for number, data in enumerate(IMAGES)]


def listed(*sources: Path | str) -> list[str]:
    return [entry.address for entry in list_sources([str(source) for source in sources]).entries]


def read_all(*sources: Path | str) -> list[bytes]:
    return [addresses.read(address) for address in listed(*sources)]


def refused(*sources: Path | str) -> str:
    with pytest.raises(PocketiqaError) as caught:
        list_sources([str(source) for source in sources])
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def memory() -> Iterator[str]:
    system = fsspec.filesystem("memory")
    yield system.unstrip_protocol("/pocketiqa-test")
    system.rm("/pocketiqa-test", recursive=True)


def test_an_address_tells_what_its_image_is_called(tmp_path: Path) -> None:
    write_files(tmp_path, ["sub/a b.png"])
    write_tar(tmp_path / "photos.tar", [("dir/été.png", IMAGES[0])])
    write_parquet(tmp_path / "rows.parquet", structs(IMAGES[:2]))
    assert [addresses.name_of(address) for address in listed(tmp_path / "sub")] == ["a b.png"]
    assert [addresses.name_of(address) for address in listed(tmp_path / "photos.tar")] == ["été.png"]
    assert [addresses.name_of(address) for address in listed(tmp_path / "rows.parquet")] == [
        "rows.parquet#0", "rows.parquet#1",
    ]  # fmt: skip
    assert addresses.name_of("s3://bucket/dir/c.png") == "c.png"
    assert addresses.name_of("images/0123/d.png") == "d.png"
    assert addresses.name_of(addresses.of_path(os.fsdecode(b"/dir/\xe9t\xe9.jpg"))) == "\ufffdt\ufffd.jpg"


# --- folders


def test_folder_is_listed_to_its_bottom_and_sorted_by_path(tmp_path: Path) -> None:
    names = ["b.png", "a.JPG", "sub/z.webp", "sub/deep/er/y.tiff", "sub-x/c.gif"]
    write_files(tmp_path, [*names, "notes.txt", "sub/data.csv"])
    expected = sorted((str(tmp_path / name) for name in names), key=os.fsencode)
    assert listed(tmp_path) == expected
    assert [addresses.read(path) for path in expected] == [Path(path).read_bytes() for path in expected]


def test_sources_keep_their_order_and_each_image_comes_once(tmp_path: Path) -> None:
    write_files(tmp_path, ["b/1.png", "a/2.png"])
    measured = listed(tmp_path / "b", tmp_path, tmp_path / "a/2.png")
    assert measured == [str(tmp_path / "b/1.png"), str(tmp_path / "a/2.png")]


def test_relative_names_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, ["a/1.png"])
    monkeypatch.chdir(tmp_path)
    assert listed("a") == listed(".") == listed("a/../a/1.png") == [str(tmp_path / "a/1.png")]


def test_a_file_named_by_itself_needs_no_suffix(tmp_path: Path) -> None:
    write_files(tmp_path, ["photo", "notes.txt"])
    assert read_all(tmp_path / "photo", tmp_path / "notes.txt") == IMAGES[:2]


def test_links_are_followed_once_and_loops_become_rows(tmp_path: Path) -> None:
    write_files(tmp_path, ["in/real/1.png", "in/real/deep/2.png", "outside/3.png"])
    inside = tmp_path / "in"
    (inside / "aaa").symlink_to("real")  # sorts first, yet the real folder keeps its name
    (inside / "far").symlink_to(tmp_path / "outside")
    (inside / "real/deep/up").symlink_to("../..")
    (inside / "real/self").symlink_to(".")
    (inside / "gone").symlink_to("nowhere")
    (inside / "gone.txt").symlink_to("nowhere")
    (inside / "file.png").symlink_to("real/1.png")
    listing = list_sources([str(inside)])
    names = {Path(entry.address).relative_to(inside).as_posix(): entry for entry in listing.entries}
    assert list(names) == [
        "far/3.png",
        "file.png",
        "gone",
        "real/1.png",
        "real/deep/2.png",
        "real/deep/up",
        "real/self",
    ]
    for name in ("real/deep/up", "real/self"):
        assert names[name].problem == (Status.UNREADABLE, "a link that leads back to a folder it is in")
    with pytest.raises(ImageError, match="broken link"):
        addresses.read(names["gone"].address)


def test_many_crossing_links_are_walked_in_no_time(tmp_path: Path) -> None:
    # Followed naively, 2 ** 30 paths lead to the picture.
    for level in range(30):
        (tmp_path / f"{level}").mkdir()
        for link in ("a", "b"):
            (tmp_path / f"{level}" / link).symlink_to(tmp_path / f"{level + 1}")
    write_files(tmp_path, ["30/1.png"])
    assert listed(tmp_path / "0") == [str(tmp_path / "0" / "/".join("a" * 30) / "1.png")]


def test_folder_that_cannot_be_listed_is_a_row(tmp_path: Path) -> None:
    write_files(tmp_path, ["a/1.png"])
    folder, deepest = os.open(tmp_path, os.O_RDONLY), tmp_path
    while len(str(deepest)) < 4096:  # the longest path that Linux takes
        os.mkdir("n" * 250, dir_fd=folder)
        inner = os.open("n" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder, deepest = inner, deepest / ("n" * 250)
    os.close(folder)
    first, second = list_sources([str(tmp_path)]).entries
    assert first.address == str(tmp_path / "a/1.png")
    assert second.address == str(deepest)
    assert second.problem == (Status.UNREADABLE, "a folder that cannot be listed (File name too long)")


@pytest.mark.parametrize("name", ["a b.png", "new\nline.png", "#1?x=%20&.png", "a::b.png", "日本.png", "'\".png"])
def test_awkward_names_are_literal(tmp_path: Path, name: str) -> None:
    write_files(tmp_path, [name])
    assert listed(tmp_path) == [str(tmp_path / name)]
    assert read_all(tmp_path) == read_all(tmp_path / name) == IMAGES[:1]


def test_names_that_are_not_utf8_are_percent_encoded(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 100%.png")
    write_files(tmp_path, [name])
    (address,) = listed(tmp_path)
    assert address == "file://" + str(tmp_path).replace("/", "%2F") + "%2Fcaf%E9%20100%25.png"
    assert addresses.local_path(address) == tmp_path / name
    assert addresses.read(address) == IMAGES[0]


def test_digest_follows_names_sizes_and_times(tmp_path: Path) -> None:
    write_files(tmp_path, ["a.png", "b.png"])

    def digest() -> str:
        return list_sources([str(tmp_path)]).digest

    seen = [digest()]
    assert digest() == seen[0]
    os.utime(tmp_path / "a.png", ns=(1, 1))
    seen.append(digest())
    (tmp_path / "a.png").write_bytes(IMAGES[2] + b"x")
    os.utime(tmp_path / "a.png", ns=(1, 1))
    seen.append(digest())
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    seen.append(digest())
    (tmp_path / "c.png").unlink()
    seen.append(digest())
    assert len(set(seen)) == 5


def test_mistakes_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    assert str(tmp_path / "nowhere") in refused(tmp_path / "nowhere")
    message = refused(tmp_path / "empty")
    assert str(tmp_path / "empty") in message
    assert all(suffix in message for suffix in DECODED_SUFFIXES)
    assert "an empty list of sources" in refused()
    assert "new\\nline" in refused(tmp_path / "new\nline")


def test_a_name_that_vanished_is_left_to_the_reader(tmp_path: Path) -> None:
    (address,) = listed(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="no such file") as caught:
        addresses.read(address)
    assert caught.value.status == Status.MISSING


# --- WebDataset tar


def test_tar_members_are_where_tarfile_puts_them(tmp_path: Path) -> None:
    names = ["0.png", "dir/é 1.png", "a::b?offset=7#%.png", "x" * 150 + ".png", os.fsdecode(b"\xff.png"), "0.png"]
    images = [(name, data) for name, data in zip(names, IMAGES, strict=False)]
    labels = [(name[:-3] + "cls", b"3") for name in names]
    write_tar(tmp_path / "s.tar", [member for pair in zip(images, labels, strict=True) for member in pair])
    measured = listed(tmp_path / "s.tar")
    assert len(measured) == 6
    assert measured[0] == f"tar://0.png?offset=512&size={len(IMAGES[0])}::{tmp_path}/s.tar"
    assert all(address.isprintable() for address in measured)
    assert [addresses.read(address) for address in measured] == IMAGES[:6]
    with tarfile.open(tmp_path / "s.tar") as archive:
        offsets = [member.offset_data for member in archive if member.name.endswith(".png")]
    assert [int(address.split("offset=")[-1].split("&")[0]) for address in measured] == offsets


def test_a_short_tar_gives_its_whole_members_and_a_row(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", NAMED[:4])
    whole = (tmp_path / "s.tar").read_bytes()
    with tarfile.open(tmp_path / "s.tar") as archive:
        third = archive.getmembers()[2]
    for cut, members in ((third.offset_data + 100, 3), (third.offset + 100, 2)):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        *kept, last = list_sources([str(tmp_path / "cut.tar")]).entries
        assert len(kept) == members
        assert [addresses.read(entry.address) for entry in kept[:2]] == IMAGES[:2]
        assert last.address == str(tmp_path / "cut.tar")
        assert last.problem is not None
        assert last.problem[0] == Status.CORRUPT
        assert "members behind it are lost" in last.problem[1]
    (tmp_path / "cut.tar").write_bytes(whole[: third.offset_data + 100])
    with pytest.raises(ImageError, match="archive ends before"):
        addresses.read(listed(tmp_path / "cut.tar")[2])


def test_a_damaged_header_does_not_lose_members_silently(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", NAMED[:4])
    with tarfile.open(tmp_path / "s.tar") as archive:
        third = archive.getmembers()[2]
    distorted = bytearray((tmp_path / "s.tar").read_bytes())
    distorted[third.offset + 150] ^= 255  # its checksum
    (tmp_path / "s.tar").write_bytes(distorted)
    entries = list_sources([str(tmp_path / "s.tar")]).entries
    assert len(entries) == 3
    assert entries[2].problem is not None
    assert f"corrupt at byte {third.offset}" in entries[2].problem[1]


def test_links_in_a_tar_are_rows_and_nothing_is_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        link = tarfile.TarInfo("passwd.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        info = tarfile.TarInfo("../../escaped.png")
        info.size = len(IMAGES[0])
        archive.addfile(info, io.BytesIO(IMAGES[0]))
    first, second = list_sources([str(tmp_path / "s.tar")]).entries
    assert first.problem is not None
    assert first.problem[0] == Status.UNREADABLE
    assert addresses.read(second.address) == IMAGES[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.tar"]


def test_compressed_and_false_tars_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    assert "decompress it to .tar" in refused(tmp_path / "s.tar.gz")
    (tmp_path / "s.tar.gz").rename(tmp_path / "zipped.tar")
    assert "no uncompressed tar, but an archive (gzip): unpack it" in refused(tmp_path / "zipped.tar")
    (tmp_path / "text.tar").write_text("not a tar\n" * 100)
    assert "decompress or replace it" in refused(tmp_path / "text.tar")
    (tmp_path / "empty.tar").touch()
    assert "empty.tar" in refused(tmp_path / "empty.tar")


# --- other file systems


def test_remote_folder_file_tar_and_parquet(tmp_path: Path, memory: str) -> None:
    system = fsspec.filesystem("memory")
    for name, data in zip(["sub/b.png", "a.png", "notes.txt"], IMAGES, strict=False):
        system.pipe(f"{memory}/folder/{name}", data)
    assert listed(f"{memory}/folder") == [f"{memory}/folder/a.png", f"{memory}/folder/sub/b.png"]
    assert read_all(f"{memory}/folder") == [IMAGES[1], IMAGES[0]]
    assert read_all(f"{memory}/folder/notes.txt") == [IMAGES[2]]
    write_tar(tmp_path / "s.tar", NAMED[:4])
    write_parquet(tmp_path / "t.parquet", structs())
    for name in ("s.tar", "t.parquet"):
        system.pipe(f"{memory}/{name}", (tmp_path / name).read_bytes())
    assert read_all(f"{memory}/s.tar") == IMAGES[:4]
    assert read_all(f"{memory}/t.parquet") == IMAGES


def test_remote_mistakes_are_named(memory: str) -> None:
    fsspec.filesystem("memory").pipe(f"{memory}/a.png", IMAGES[0])
    assert f"{memory}/nowhere" in refused(f"{memory}/nowhere")
    assert "nosuchprotocol" in refused("nosuchprotocol://x")
    assert "not supported" in refused("zip://a.png::/b.zip")
    with pytest.raises(ImageError, match="no such file") as caught:
        addresses.read(f"{memory}/b.png")
    assert caught.value.status == Status.MISSING


def test_file_urls_of_users_are_local_paths(tmp_path: Path) -> None:
    write_files(tmp_path, ["a b%20.png"])
    assert listed(f"file://{tmp_path}") == [str(tmp_path / "a b%20.png")]


# --- anywhere


def test_addresses_can_be_read_in_threads_and_other_processes(tmp_path: Path) -> None:
    measured = listed(*write_all_kinds(tmp_path))
    mixed = [address for step in range(7) for address in measured[step::7]] * 5
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(addresses.read, mixed)) == [addresses.read(address) for address in mixed]
    code = (
        "import hashlib, sys; from pseudo_labels.addresses import read\n"
        "print([hashlib.sha256(read(a)).hexdigest() for a in reversed(sys.argv[1:])])"
    )
    printed = subprocess.run([sys.executable, "-c", code, *measured], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == str([hashlib.sha256(data).hexdigest() for data in reversed(IMAGES * 4)])


def test_a_forked_child_can_read_what_a_thread_was_reading(tmp_path: Path) -> None:
    from pseudo_labels import rows

    write_parquet(tmp_path / "t.parquet", structs())
    address = listed(tmp_path / "t.parquet")[4]
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with rows._parquet_table._lock:
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(20)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if addresses.read(address) == IMAGES[4] else 1)
        finally:
            os._exit(2)
    leave.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- archives behind archives, leftovers, pointers


def zeros(blocks: int) -> bytes:
    return bytes(512 * blocks)


def bare_tar(path: Path, members: list[tuple[str, bytes]]) -> bytes:
    """The members alone, without the blocks that end an archive."""
    write_tar(path, members)
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    return path.read_bytes()[: last.offset_data + (last.size + 511) // 512 * 512]


@pytest.mark.parametrize("blocks", [0, 1, 2, 7, 4096])
def test_members_behind_zero_blocks_are_listed(tmp_path: Path, blocks: int) -> None:
    one, two = bare_tar(tmp_path / "a.tar", NAMED[:2]), bare_tar(tmp_path / "b.tar", NAMED[2:5])
    (tmp_path / "both.tar").write_bytes(zeros(1) + one + zeros(blocks) + two + zeros(20))
    assert read_all(tmp_path / "both.tar") == IMAGES[:5]
    entries = list_sources([str(tmp_path / "both.tar")]).entries
    assert [entry.problem for entry in entries] == [None] * 5


def test_tars_joined_by_cat_are_listed_whole(tmp_path: Path) -> None:
    for name, members in (("a.tar", NAMED[:2]), ("b.tar", NAMED[2:5]), ("c.tar", NAMED[5:])):
        write_tar(tmp_path / name, members)
    joined = b"".join((tmp_path / name).read_bytes() for name in ("a.tar", "b.tar", "c.tar"))
    (tmp_path / "all.tar").write_bytes(joined)
    assert read_all(tmp_path / "all.tar") == IMAGES


def test_a_hole_in_a_tar_is_not_read_through(tmp_path: Path) -> None:
    one, two = bare_tar(tmp_path / "a.tar", NAMED[:1]), bare_tar(tmp_path / "b.tar", NAMED[1:2])
    sparse = tmp_path / "sparse.tar"
    with open(sparse, "wb") as file:
        file.write(one)
        file.seek(1 << 38)  # 256 GB, which would take minutes to read
        file.write(two)
        file.truncate(1 << 39)
    assert read_all(sparse) == IMAGES[:2]


@pytest.mark.parametrize("rest", [b"rubbish", b"rubbish" * 1000])
def test_what_is_no_archive_behind_an_archive_is_a_row(tmp_path: Path, rest: bytes) -> None:
    one = bare_tar(tmp_path / "a.tar", NAMED[:2]) + zeros(2)
    (tmp_path / "a.tar").write_bytes(one + rest)
    *whole, last = list_sources([str(tmp_path / "a.tar")]).entries
    assert [addresses.read(entry.address) for entry in whole] == IMAGES[:2]
    assert last.problem is not None
    assert last.problem[0] == Status.CORRUPT
    assert f"corrupt at byte {len(one)}" in last.problem[1]
    assert "members behind it are lost" in last.problem[1]


def test_leftovers_in_a_tar_and_far_away_are_counted(tmp_path: Path, memory: str) -> None:
    names = ["a.png", "._a.png", "__MACOSX/._a.png", "b/@eaDir/a.png/S.png", "labels/a.json", "b.png"]
    write_tar(tmp_path / "s.tar", list(zip(names, IMAGES, strict=False)))
    listing = list_sources([str(tmp_path / "s.tar")])
    assert [addresses.name_of(entry.address) for entry in listing.entries] == ["a.png", "b.png"]
    for name, image in zip(names, IMAGES, strict=False):
        fsspec.filesystem("memory").pipe(f"{memory}/folder/{name}", image)
    fsspec.filesystem("memory").pipe(f"{memory}/folder/data/1.parquet", b"")
    remote = list_sources([f"{memory}/folder"])
    assert [entry.address for entry in remote.entries] == [f"{memory}/folder/a.png", f"{memory}/folder/b.png"]
    for notes in (listing.notes, remote.notes):
        assert "images left out by rule: 1 of ._*, 1 of @eaDir, 1 of __MACOSX" in notes[0]
        assert notes[-1].endswith("not those of images: 1 .json")
    assert f"1 '{memory}/folder/data/*.parquet'; name them as sources themselves" in remote.notes[1]


def test_a_folder_of_shards_alone_says_how_to_name_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data/0.parquet", structs())
    message = refused(tmp_path)
    assert f"1 '{tmp_path}/data/*.parquet'; name them as sources themselves" in message


@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
def test_a_pointer_of_git_lfs_is_called_so(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n")
    assert "a Git LFS pointer, not the file itself: run `git lfs pull`" in refused(tmp_path / name)


def test_a_source_without_images_among_others_is_said(tmp_path: Path) -> None:
    write_files(tmp_path, ["photos/a.png"])
    write_tar(tmp_path / "labels.tar", [("a.json", b"{}")])
    (tmp_path / "empty").mkdir()
    notes = list_sources([str(tmp_path / name) for name in ("photos", "labels.tar", "empty")]).notes
    assert notes[1:] == tuple(f"no images in the source '{tmp_path}/{name}'" for name in ("labels.tar", "empty"))


def test_random_joined_tars_are_listed_as_tarfile_lists_them_beyond_zeros(tmp_path: Path) -> None:
    random = Random(13)
    for number in range(40):
        joined = b""
        for part in range(random.randint(1, 4)):
            sizes = (random.choice([1, 511, 512, 513, 3000]) for _ in range(random.randint(0, 3)))
            members = [(f"{part}-{index}.png", random.randbytes(size)) for index, size in enumerate(sizes)]
            write_tar(tmp_path / "one.tar", members)
            one = (tmp_path / "one.tar").read_bytes()
            joined += (one[:-1024] if random.random() < 0.5 else one) + zeros(random.choice([0, 1, 2, 5]))
        path = tmp_path / f"{number}.tar"
        path.write_bytes(joined)
        with tarfile.open(path, ignore_zeros=True) as archive:
            expected = [(member.name, archive.extractfile(member)) for member in archive.getmembers()]
            contents = [(name, file.read()) for name, file in expected if file]
        if contents:
            assert [(addresses.name_of(one), addresses.read(one)) for one in listed(path)] == contents
