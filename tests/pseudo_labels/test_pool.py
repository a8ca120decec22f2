"""Pools: rows for good and bad images, identity, refusal to mix, and reading what was listed."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pseudo_labels import addresses, outputs
from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError, StorageFullError
from pseudo_labels.files import exclusive, sha256_bytes
from pseudo_labels.images import DecodeLimits, ImageError, load
from pseudo_labels.pool import KIND, TABLE, Pool, build_pool, write_pool
from pseudo_labels.records import ImageRef, Status
from tests.helpers.containers import IMAGES, write_all_kinds, write_files
from tests.helpers.corpus import CorpusItem, build_corpus
from tests.helpers.encoders import encode, picture
from tests.helpers.shared import shared_data
from tests.helpers.tmpfs import small_disk


def photographs(folder: Path, count: int = 5) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(encode(picture(number), "PNG"))
    return folder


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return build_pool([str(photographs(tmp_path / "photos"))], tmp_path / "pool")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[CorpusItem], Pool]:
    folder = tmp_path_factory.mktemp("corpus")
    items = build_corpus(folder / "images")
    sources = [str(folder / "images"), *(str(item.path) for item in items if not os.path.lexists(item.path))]
    return items, build_pool(sources, folder / "pool", max_bad_fraction=0.8, workers=3)


# --- rows


def test_every_item_of_the_corpus_is_one_row(corpus: tuple[list[CorpusItem], Pool]) -> None:
    items, pool = corpus
    expected = {addresses.of_path(item.path): item.expected_status for item in items}
    assert {ref.uri: ref.status for ref in pool} == expected
    assert len(pool) == len(items) == len(expected)
    for ref in pool:
        assert (ref.reason == "") == (ref.status == Status.OK)
        assert (ref.width > 0) == (ref.dhash != "") == (ref.status == Status.OK)
    assert len({ref.id for ref in pool.ok()}) == len(pool.ok())


def test_rows_of_good_images_say_what_the_file_is(corpus: tuple[list[CorpusItem], Pool]) -> None:
    _, pool = corpus
    for ref in pool.ok()[::7]:
        path = addresses.local_path(ref.uri)
        assert path is not None
        data = path.read_bytes()
        assert (ref.sha256, ref.id, ref.bytes) == (sha256_bytes(data), sha256_bytes(data)[:24], len(data))
        np.testing.assert_array_equal(pool.load(ref), load(path))
        assert (ref.height, ref.width) == load(path).shape[:2]


def test_the_eight_turns_are_one_scene(corpus: tuple[list[CorpusItem], Pool]) -> None:
    _, pool = corpus
    turns = [ref for ref in pool if Path(ref.uri).name.startswith("turn-")]
    assert len(turns) == 9
    assert len({ref.group for ref in turns}) == 1
    assert len({ref.group for ref in pool.ok()}) == len(pool.ok()) - 8


def test_exact_copies_are_duplicates_of_the_first(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos", 3)
    shutil.copy(folder / "1.png", folder / "9.png")
    shutil.copy(folder / "1.png", folder / "0-earlier.png")
    (folder / "bad.png").write_bytes(b"bad")
    (folder / "bad2.png").write_bytes(b"bad")
    pool = build_pool([str(folder)], tmp_path / "pool")
    rows = {Path(ref.uri).name: ref for ref in pool}
    assert [name for name, ref in rows.items() if ref.status == Status.DUPLICATE] == ["1.png", "9.png"]
    assert rows["9.png"].reason == f"the same bytes as {folder}/0-earlier.png"
    assert rows["9.png"].id == rows["0-earlier.png"].id == rows["9.png"].group
    assert pool.by_id(rows["1.png"].id).uri.endswith("0-earlier.png")
    # Two equal bad files are bad, not duplicates.
    assert rows["bad.png"].status == rows["bad2.png"].status == Status.NOT_AN_IMAGE
    assert pool.manifest.content["statuses"] == {"duplicate": 2, "not_an_image": 2, "ok": 3}


def test_near_copies_share_a_group_named_by_the_first(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos", 3)
    (folder / "1-again.jpg").write_bytes(encode(picture(1), "JPEG"))
    pool = build_pool([str(folder)], tmp_path / "pool")
    rows = {Path(ref.uri).name: ref for ref in pool}
    assert rows["1.png"].group == rows["1-again.jpg"].group == rows["1-again.jpg"].id
    assert len({ref.group for ref in pool}) == pool.manifest.content["groups"] == 3
    apart = build_pool([str(folder)], tmp_path / "exact", near_duplicate_distance=0)
    assert apart.manifest.content["groups"] in (3, 4)
    assert apart.manifest.spec["near_distance"] == 0


def test_the_four_kinds_of_sources_make_the_same_pool(tmp_path: Path) -> None:
    sources = write_all_kinds(tmp_path)
    pools = [build_pool([source], tmp_path / f"pool-{number}", workers=2) for number, source in enumerate(sources)]
    assert len({pool.digest for pool in pools}) == 1
    for pool in pools:
        assert [pool.read(ref) for ref in pool] == IMAGES
    # A pool of all four holds each picture once.
    together = build_pool(sources, tmp_path / "together")
    assert [ref.status for ref in together] == [Status.OK] * 7 + [Status.DUPLICATE] * 21


def test_the_pool_does_not_depend_on_workers_or_place(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos", 20)
    pools = [build_pool([str(folder)], tmp_path / f"{workers}", workers=workers) for workers in (1, 2, 7)]
    assert len({(pool.folder / TABLE).read_bytes() for pool in pools}) == 1
    folder.rename(tmp_path / "moved")
    assert build_pool([str(tmp_path / "moved")], tmp_path / "again").digest == pools[0].digest


def test_the_digest_follows_ids_groups_references_and_statuses(tmp_path: Path) -> None:
    base = ImageRef(id="a", uri="x.png", sha256="1", group="a")
    changes = [
        {},
        {"id": "b"},
        {"group": "b"},
        {"ref_id": "b"},
        {"distortion": "blur"},
        {"level": 2.0},
        {"status": Status.CORRUPT, "reason": "why"},
    ]
    made = [
        write_pool(tmp_path / f"{number}", [replace(base, **change)], spec={}).digest
        for number, change in enumerate(changes)
    ]
    assert len(set(made)) == len(changes)
    same = write_pool(tmp_path / "same", [replace(base, uri="elsewhere.png", width=7)], spec={"other": 1})
    assert same.digest == made[0]


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/0.jpg").write_bytes(encode(picture(0, 1200, 900), "JPEG"))
    for number in range(1, 60):
        os.link(tmp_path / "photos/0.jpg", tmp_path / f"photos/{number}.jpg")
    code = (
        "import resource, sys; from pathlib import Path; from pseudo_labels.pool import build_pool\n"
        "seen = {}\n"
        "def note(done, total): seen[done] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "build_pool([sys.argv[1]], Path(sys.argv[2]), workers=2, progress=note)\n"
        "print(seen[60] - seen[10])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "photos"), str(tmp_path / "pool")]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 60  # MB, of 194 MB decoded


def test_few_rows_exist_as_objects_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("measuring", "pool", "ref_tables"):
        monkeypatch.setattr(f"pseudo_labels.{module}.ROWS_AT_ONCE", 10)
    living: list[int] = []

    def note(done: int, total: int) -> None:
        living.append(sum(type(one) is ImageRef for one in gc.get_objects()) if done == total else 0)

    pool = build_pool([str(photographs(tmp_path / "photos", 100))], tmp_path / "pool", progress=note)
    assert living[-1] <= 20  # a block, and what the worker is ahead
    assert [ref.uri for ref in pool.rows(range(15, 37))] == [ref.uri for ref in pool][15:37]
    assert [ref.uri for ref in pool.take(np.array([60, 2, 60]))] == [pool[row].uri for row in (60, 2, 60)]
    assert list(pool.take(np.array([], int))) == []


# --- again, differently, interrupted


def test_the_same_call_again_reads_nothing(tmp_path: Path, pool: Pool) -> None:
    seen: list[tuple[int, int]] = []
    again = build_pool(
        [str(tmp_path / "photos")], tmp_path / "pool", workers=2, progress=lambda *step: seen.append(step)
    )
    assert seen == []
    assert list(again) == list(pool)


def test_progress_counts_every_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folder = photographs(tmp_path / "photos")
    build_pool([str(folder)], tmp_path / "pool", workers=2, progress=lambda *step: seen.append(step))
    assert seen == [(done, 5) for done in range(1, 6)]


def test_a_changed_folder_is_noticed(tmp_path: Path, pool: Pool) -> None:
    source, out = [str(tmp_path / "photos")], tmp_path / "pool"
    (tmp_path / "photos/new.png").write_bytes(encode(picture(77), "PNG"))
    with pytest.raises(OutputConflictError, match=r"images: 5 -> 6.*--overwrite"):
        build_pool(source, out)
    assert len(build_pool(source, out, overwrite=True)) == 6
    (tmp_path / "photos/new.png").write_bytes(encode(picture(78), "PNG"))
    with pytest.raises(OutputConflictError, match="files_digest"):
        build_pool(source, out)


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_that_were_only_touched_leave_the_pool_as_it_is(tmp_path: Path, pool: Pool, overwrite: bool) -> None:
    for file in (tmp_path / "photos").iterdir():
        os.utime(file, ns=(1, 1))
    read: list[int] = []
    for replacing in (overwrite, False):
        again = build_pool(
            [str(tmp_path / "photos")], pool.folder, overwrite=replacing, progress=lambda done, _: read.append(done)
        )
        assert list(again) == list(pool)
        assert again.manifest.content == pool.manifest.content
        assert read == [1, 2, 3, 4, 5]  # once, and then never again
    with pytest.raises(OutputConflictError, match="near_distance"):
        build_pool([str(tmp_path / "photos")], pool.folder, near_duplicate_distance=2)


def test_files_that_have_changed_are_read_once(tmp_path: Path, pool: Pool) -> None:
    file = next((tmp_path / "photos").iterdir())
    file.write_bytes(encode(picture(78), "PNG"))
    read: list[int] = []
    made = build_pool(
        [str(tmp_path / "photos")], pool.folder, overwrite=True, progress=lambda done, _: read.append(done)
    )
    assert list(made) != list(pool)
    assert read == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("corrupt", [TABLE, "manifest.json"])
def test_a_corrupt_pool_of_touched_files_is_made_anew_if_wanted(tmp_path: Path, pool: Pool, corrupt: str) -> None:
    (pool.folder / corrupt).write_bytes(b"damaged")
    for file in (tmp_path / "photos").iterdir():
        os.utime(file, ns=(1, 1))
    with pytest.raises(PocketiqaError):
        build_pool([str(tmp_path / "photos")], pool.folder)
    assert list(build_pool([str(tmp_path / "photos")], pool.folder, overwrite=True)) == list(pool)


@pytest.mark.parametrize("change", [{"near_duplicate_distance": 2}, {"limits": DecodeLimits(min_side=32)}])
def test_other_settings_are_refused(tmp_path: Path, pool: Pool, change: dict) -> None:
    with pytest.raises(OutputConflictError, match="made differently"):
        build_pool([str(tmp_path / "photos")], tmp_path / "pool", **change)


def test_an_interrupted_build_is_done_anew(tmp_path: Path, pool: Pool) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    out = tmp_path / "second"
    with pytest.raises(KeyboardInterrupt):
        build_pool([str(tmp_path / "photos")], out, workers=2, progress=stop)
    with pytest.raises(PocketiqaError, match="unfinished: run the command that makes it again"):
        Pool.open(out)
    build_pool([str(tmp_path / "photos")], out)
    assert (out / TABLE).read_bytes() == (pool.folder / TABLE).read_bytes()
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", TABLE]


def test_too_many_bad_images_fail_loudly_and_can_be_looked_at(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos", 2)
    for number in range(3):
        (folder / f"x{number}.jpg").write_bytes(b"nothing")
    (folder / "y.jpg").touch()
    out = tmp_path / "pool"
    with pytest.raises(PocketiqaError) as caught:
        build_pool([str(folder)], out)
    message = str(caught.value)
    assert "4 of 6 images are bad, above the limit of 50%: 3 not_an_image (such as: begins with b'nothing'" in message
    assert "1 empty" in message
    assert str(out / TABLE) in message
    assert "--max-bad-fraction" in message
    assert "\n" not in message
    assert pq.read_table(out / TABLE).column("status").to_pylist() == ["ok", "ok", *["not_an_image"] * 3, "empty"]
    with pytest.raises(PocketiqaError, match="unfinished"):
        Pool.open(out)
    assert len(build_pool([str(folder)], out, max_bad_fraction=0.7)) == 6


def test_duplicates_are_not_bad_but_nothing_good_is_a_failure(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos", 1)
    for number in range(1, 9):
        shutil.copy(folder / "0.png", folder / f"{number}.png")
    assert len(build_pool([str(folder)], tmp_path / "pool", max_bad_fraction=0).ok()) == 1
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.png").touch()
    with pytest.raises(PocketiqaError, match="1 of 1 images are bad"):
        build_pool([str(tmp_path / "bad")], tmp_path / "bad-pool", max_bad_fraction=1)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"near_duplicate_distance": 11}, "near_duplicate_distance is 11, but must be 0 to 10"),
        ({"max_bad_fraction": 1.5}, "max_bad_fraction is 1.5, but must be 0 to 1"),
        ({"max_bad_fraction": float("nan")}, "max_bad_fraction is nan"),
        ({"workers": 0}, "workers is 0, but must be at least 1"),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path: Path, argument: dict, message: str) -> None:
    with pytest.raises(PocketiqaError, match=message):
        build_pool([str(photographs(tmp_path / "photos", 1))], tmp_path / "pool", **argument)
    assert not (tmp_path / "pool").exists()


def test_an_empty_source_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PocketiqaError, match="no images in"):
        build_pool([str(tmp_path / "empty")], tmp_path / "pool")
    assert not (tmp_path / "pool").exists()


def test_a_full_disk_is_said_and_leaves_the_old_pool(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kib=64) as disk:
        write_pool(disk / "first", [ImageRef(id="a", uri="a")], spec={})
        many = [ImageRef(id=sha256_bytes(b"%d" % number), uri=f"/{number}") for number in range(20_000)]
        with pytest.raises(StorageFullError, match="no space left"):
            write_pool(disk / "second", many, spec={})
        assert len(Pool.open(disk / "first")) == 1
        assert not (disk / "second" / TABLE).exists()


# --- reading


def test_rows_by_position_and_id(pool: Pool) -> None:
    rows = list(pool)
    assert len(pool) == 5
    assert [pool[index] for index in range(5)] == rows
    assert pool[-1] == rows[-1]
    assert all(isinstance(ref.status, Status) for ref in rows)
    assert [pool.by_id(ref.id) for ref in rows] == rows
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"row {index} of a pool of 5 rows"):
            pool[index]
    for unknown in ("", "zzz", "ffffffffffffffffffffffff"):
        with pytest.raises(PocketiqaError, match=f"no image '{unknown}'"):
            pool.by_id(unknown)


def test_changed_and_vanished_images_are_told(pool: Pool) -> None:
    changed, vanished, cut = pool[0], pool[1], pool[2]
    Path(changed.uri).write_bytes(encode(picture(50), "PNG"))
    Path(vanished.uri).unlink()
    Path(cut.uri).write_bytes(b"")
    seen = []
    for ref in (changed, vanished, cut):
        for action in (pool.read, pool.load):
            with pytest.raises(ImageError) as caught:
                action(ref)
            seen.append(caught.value.status)
    assert seen == [Status.CHANGED] * 2 + [Status.MISSING] * 2 + [Status.EMPTY] * 2


def test_bad_rows_are_refused_with_their_own_reason(corpus: tuple[list[CorpusItem], Pool]) -> None:
    _, pool = corpus
    bad = [ref for ref in pool if ref.status != Status.OK]
    assert len(bad) > 50
    for ref in bad:
        with pytest.raises(ImageError) as caught:
            pool.load(ref)
        assert (caught.value.status, caught.value.reason) == (ref.status, ref.reason)


def test_limits_hold_when_loading(pool: Pool) -> None:
    with pytest.raises(ImageError, match="96x80 = 7680 pixels are above the limit of 100") as caught:
        pool.load(pool[0], DecodeLimits(max_pixels=100))
    assert caught.value.status == Status.TOO_LARGE


def test_a_pool_with_its_own_images_can_be_moved(tmp_path: Path) -> None:
    data = encode(picture(3), "PNG")
    (tmp_path / "here/images").mkdir(parents=True)
    out = tmp_path / "here"
    outputs.claim(out / "pool", KIND, {"seed": 1})
    (out / "pool/images").mkdir()
    (out / "pool/images/a.png").write_bytes(data)
    ref = ImageRef(id=sha256_bytes(data)[:24], uri="images/a.png", sha256=sha256_bytes(data), level=2.5, ref_id="r")
    pool = write_pool(out / "pool", iter([ref]), spec={"seed": 1}, notes={"host": "x"})
    assert pool.manifest.kind == "pool"
    out.rename(tmp_path / "there")
    moved = Pool.open(tmp_path / "there/pool")
    assert list(moved) == [ref]
    assert moved.digest == pool.digest
    np.testing.assert_array_equal(moved.load(ref), picture(3))


def test_a_written_pool_is_not_written_again(tmp_path: Path) -> None:
    write_pool(tmp_path / "pool", [ImageRef(id="a", uri="a")], spec={"seed": 1})

    def rows() -> Iterator[ImageRef]:
        yield ImageRef(id="", uri=str(1 // 0))  # the rows are not to be asked for

    assert len(write_pool(tmp_path / "pool", rows(), spec={"seed": 1})) == 1
    with pytest.raises(OutputConflictError, match="seed: 1 -> 2"):
        write_pool(tmp_path / "pool", rows(), spec={"seed": 2})
    assert len(write_pool(tmp_path / "pool", [], spec={"seed": 2}, overwrite=True)) == 0


def test_a_pool_that_is_being_written_is_refused_to_others(tmp_path: Path) -> None:
    write_pool(tmp_path / "pool", [ImageRef(id="a", uri="a")], spec={"seed": 1})
    with exclusive(tmp_path / "pool" / ".lock", what="it"):
        for overwrite in (False, True):
            with pytest.raises(OutputConflictError, match="another process is writing"):
                write_pool(tmp_path / "pool", [], spec={"seed": 2}, overwrite=overwrite)
    assert len(Pool.open(tmp_path / "pool")) == 1


def test_what_a_killed_writer_left_is_gone_when_the_pool_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    outputs.claim(folder, KIND, {"seed": 1})
    for name in (outputs.MANIFEST, TABLE):
        (folder / f".{name}.4242-1.tmp").write_bytes(b"half")
    write_pool(folder, [ImageRef(id="a", uri="a")], spec={"seed": 1})
    assert sorted(path.name for path in folder.iterdir()) == [outputs.MANIFEST, TABLE]


def test_threads_read_what_one_reads(pool: Pool) -> None:
    rows = list(range(5)) * 20
    with ThreadPoolExecutor(8) as executor:
        together = list(executor.map(lambda index: (pool.by_id(pool[index].id), pool.load(pool[index])), rows))
    for index, (ref, rgb) in zip(rows, together, strict=True):
        assert ref == pool[index]
        np.testing.assert_array_equal(rgb, picture(index))


def test_tampering_and_loss_are_refused(tmp_path: Path, pool: Pool) -> None:
    path = pool.folder / TABLE
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(IntegrityError, match="was altered"):
        Pool.open(pool.folder)
    path.unlink()
    with pytest.raises(PocketiqaError, match="is missing"):
        Pool.open(pool.folder)
    with pytest.raises(PocketiqaError, match="no pool manifest"):
        Pool.open(tmp_path / "photos")
    outputs.claim(tmp_path / "run", "run", {})
    with pytest.raises(PocketiqaError, match="holds 'run', but 'pool' is needed"):
        Pool.open(tmp_path / "run")


# --- real photographs


def test_kodak_and_its_compressed_copies_are_24_scenes(tmp_path: Path) -> None:
    kodak = shared_data("kodak")
    (tmp_path / "jpeg").mkdir()
    for path in kodak.glob("*.png"):
        (tmp_path / "jpeg" / f"{path.stem}.jpg").write_bytes(encode(load(path), "JPEG", quality=20))
    pool = build_pool([str(kodak), str(tmp_path / "jpeg")], tmp_path / "pool", workers=2)
    assert len(pool.ok()) == 48
    scenes: dict[str, set[str]] = {}
    for ref in pool:
        scenes.setdefault(ref.group, set()).add(Path(ref.uri).stem)
    assert sorted(len(names) for names in scenes.values()) == [1] * 24


def test_bad_files_are_no_scenes_and_notes_are_said(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos", 3)
    shutil.copy(folder / "1.png", folder / "1-again.png")
    for name in ("bad.png", "raw.cr2", "._1.png"):
        (folder / name).write_bytes(b"bad " + name.encode())
    (folder / "notes.txt").write_text("x")
    said: list[str] = []
    pool = build_pool([str(folder)], tmp_path / "pool", warn=said.append)
    assert pool.manifest.content["statuses"] == {"duplicate": 1, "not_an_image": 2, "ok": 3}
    assert pool.manifest.content["groups"] == 3
    assert [line.partition(":")[0] for line in said] == [
        "images left out by rule",
        "passed over, for their names are not those of images",
    ]


def test_what_a_pool_accepted_is_loaded_from_it(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/small.png").write_bytes(encode(picture(5, 40, 32), "PNG"))
    pool = build_pool([str(tmp_path / "photos")], tmp_path / "pool", limits=DecodeLimits(min_side=16))
    assert pool.load(pool[0]).shape == (32, 40, 3)
    with pytest.raises(ImageError, match="below the limit of 64"):
        pool.load(pool[0], DecodeLimits())


def test_a_pool_without_regions_is_the_file_that_it_always_was(tmp_path: Path):
    """Digests as the version before regions wrote them; the Parquet file holds the name of its writer."""
    clean = ImageRef("a" * 24, "a.png", "a" * 64, "0" * 16, 10, 80, 90, group="a" * 24)
    copy = ImageRef(
        "b" * 24, "b.png", "b" * 64, "1" * 16, 11, 80, 90, group="a" * 24, ref_id="a" * 24, distortion="jpeg", level=2.5
    )
    plain = write_pool(tmp_path / "plain", [clean, copy], spec={"made": "by hand"})
    assert plain.digest == "c0f4c502ba9bca7985b74b561e834ccfe2e574f564aa38608e49868fe321184c"
    assert "region" not in pq.read_schema(tmp_path / "plain" / "pool.parquet").names
    regional = [clean, replace(copy, region="r")]
    pool = write_pool(tmp_path / "regional", regional, spec={"made": "by hand"}, regions=True)
    assert list(Pool.open(pool.folder)) == regional
    other = write_pool(tmp_path / "other", [clean, replace(copy, region="s")], spec={"made": "by hand"}, regions=True)
    assert len({pool.digest, other.digest, plain.digest}) == 3


@pytest.mark.parametrize("name", ["sha256", "digest"])
def test_a_manifest_that_does_not_say_what_the_table_is_is_refused(name: str, tmp_path: Path) -> None:
    write_files(tmp_path / "files", ["a.png"])
    out = build_pool([str(tmp_path / "files")], tmp_path / "pool").folder
    manifest = outputs.read_manifest(out)
    content = {key: value for key, value in manifest.content.items() if key != name}
    outputs.write_manifest(out, replace(manifest, content=content))
    with pytest.raises(IntegrityError, match=f"does not say the {name} of its table"):
        Pool.open(out)
