"""Synthetic pools from real photographs on a real disk."""

import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from pseudo_labels.distort import CATALOGUE, build_synthetic_pool, distort
from pseudo_labels.distort.maker import plan
from pseudo_labels.errors import OutputConflictError, PocketiqaError, StorageFullError
from pseudo_labels.files import exclusive
from pseudo_labels.images import ImageError, load
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.records import Status
from tests.helpers.campaign import kills
from tests.helpers.killing import kill_and_resume
from tests.helpers.tmpfs import small_disk
from tests.pseudo_labels.distort.rebuild import rebuild

FAST = ["jpeg", "white_noise", "darken", "pixelate", "color_block"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six scenes of about 100 pixels, in two formats."""
    folder = tmp_path / "photos"
    folder.mkdir()
    scenes = {
        "face.png": skimage.data.astronaut()[:200, 150:350],
        "flag.png": skimage.data.astronaut()[:160, :128],
        "cat.jpg": skimage.data.chelsea()[30:230, 80:330],
        "cup.jpg": skimage.data.coffee()[:400, 100:400],
        "rocket.jpg": skimage.data.rocket()[:420, 200:500],
        "ship.png": skimage.data.rocket()[200:328, 250:346],
    }
    for name, rgb in scenes.items():
        image = Image.fromarray(rgb)
        image.thumbnail((120, 120))
        image.save(folder / name, quality=95)
    return folder


@pytest.fixture
def pool(photos: Path, tmp_path: Path) -> Pool:
    return build_pool([str(photos)], tmp_path / "pool")


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pool_holds_references_and_copies_with_their_links(pool: Pool, tmp_path: Path) -> None:
    synthetic = build_synthetic_pool(pool, tmp_path / "out", per_image=4, names=FAST, seed=7)
    originals = pool.ok()
    planned = plan([ref.id for ref in originals], FAST, 4, 7)
    assert len(synthetic) == 6 * 5
    for index, ref in enumerate(originals):
        reference, *copies = [synthetic[row] for row in range(5 * index, 5 * index + 5)]
        assert (reference.id, reference.sha256, reference.group) == (ref.id, ref.sha256, ref.group)
        assert (reference.ref_id, reference.distortion, reference.level) == ("", "", 0)
        assert [(copy.distortion, copy.level) for copy in copies] == planned[ref.id]
        clean = pool.load(ref)
        for copy in copies:
            assert (copy.status, copy.ref_id, copy.group) == (Status.OK, ref.id, ref.group)
            assert copy.uri == f"images/{ref.id}/{copy.distortion}-{copy.level:.2f}.png"
            file = tmp_path / "out" / copy.uri
            assert copy.bytes == file.stat().st_size
            assert len(copy.dhash) == 16
            expected = distort(clean, copy.distortion, copy.level, seed=7, image_id=ref.id)
            assert (copy.height, copy.width) == expected.shape[:2]
            assert np.array_equal(synthetic.load(copy), expected)
            assert np.array_equal(np.asarray(Image.open(file)), expected)
    assert len({ref.id for ref in synthetic}) == 30


def test_the_default_is_kadid_and_groups_are_taken(pool: Pool, tmp_path: Path) -> None:
    kadid = build_synthetic_pool(pool, tmp_path / "kadid", per_image=5, max_side=64)
    counts = Counter(ref.distortion for ref in kadid if ref.distortion)
    assert set(counts) == set(list(CATALOGUE)[:25])
    assert max(counts.values()) - min(counts.values()) == 1
    camera = build_synthetic_pool(pool, tmp_path / "camera", per_image=1, names=["camera"], max_side=64)
    assert {ref.distortion for ref in camera if ref.distortion} == set(list(CATALOGUE)[25:])


def test_references_above_max_side_are_shrunk_and_distorted_as_shrunk(pool: Pool, tmp_path: Path) -> None:
    synthetic = build_synthetic_pool(pool, tmp_path / "out", per_image=2, names=FAST, max_side=100)
    by_id = {ref.id: ref for ref in synthetic}
    shrunk = 0
    for copy in (ref for ref in synthetic if ref.ref_id):
        reference = by_id[copy.ref_id]
        clean = synthetic.load(reference)
        assert max(clean.shape) <= 100
        assert clean.shape[:2] == (reference.height, reference.width) == (copy.height, copy.width)
        source_id = copy.uri.split("/")[1]
        expected = distort(clean, copy.distortion, copy.level, seed=0, image_id=source_id)
        assert np.array_equal(synthetic.load(copy), expected)
        assert reference.group == pool.by_id(source_id).group
        shrunk += reference.uri == f"images/{source_id}/{Path(pool.by_id(source_id).uri).stem}.png"
    # The ship has 96x128 pixels at first, thumbnail 90x120; every scene is above 100.
    assert shrunk == 12


def test_a_shrunk_reference_is_named_like_the_photograph_unless_a_copy_is(tmp_path: Path) -> None:
    photos, rgb = tmp_path / "photos", skimage.data.astronaut()
    photos.mkdir()
    copies = build_synthetic_pool(_pool_of(photos, "a.png", rgb, tmp_path / "first"), tmp_path / "1", per_image=1,
                                  names=["jpeg"], max_side=64)  # fmt: skip
    taken = Path(next(ref.uri for ref in copies if ref.ref_id)).name
    names = {taken: "reference", "été 1 (2).jpg": "été_1_2", ".hidden.png": "hidden", f"{'x' * 200}.png": "x" * 60}
    for number, (name, expected) in enumerate(names.items()):
        pool = _pool_of(photos, name, rgb, tmp_path / f"pool{number}")
        made = build_synthetic_pool(pool, tmp_path / f"out{number}", per_image=1, names=["jpeg"], max_side=64)
        assert [Path(ref.uri).stem for ref in made if not ref.ref_id] == [expected]
        assert all(ref.status == Status.OK and made.load(ref) is not None for ref in made)


def _pool_of(photos: Path, name: str, rgb: np.ndarray, out: Path) -> Pool:
    for earlier in photos.iterdir():
        earlier.unlink()
    Image.fromarray(rgb).save(photos / name)
    return build_pool([str(photos)], out)


def test_a_reference_small_enough_stays_where_it_is(pool: Pool, photos: Path, tmp_path: Path) -> None:
    synthetic = build_synthetic_pool(pool, tmp_path / "out", per_image=1, names=FAST, max_side=120)
    uris = {ref.uri for ref in synthetic if not ref.ref_id}
    assert uris == {str(path) for path in photos.iterdir()}


def test_references_of_a_synthetic_pool_can_be_distorted_again(pool: Pool, tmp_path: Path) -> None:
    first = build_synthetic_pool(pool, tmp_path / "first", per_image=1, names=FAST, max_side=100)
    second = build_synthetic_pool(first, tmp_path / "elsewhere" / "second", per_image=1, names=["camera"])
    assert len(second) == 12
    assert all(ref.status == Status.OK for ref in second)
    assert [second.load(ref).shape for ref in second if not ref.ref_id] == [
        first.load(ref).shape for ref in first if not ref.ref_id
    ]


def test_the_same_again_is_done_and_something_else_is_refused(pool: Pool, tmp_path: Path) -> None:
    out, calls = tmp_path / "out", []
    build: dict[str, Any] = {"per_image": 1, "names": ["jpeg", "darken"], "progress": lambda *at: calls.append(at)}
    first = build_synthetic_pool(pool, out, **build)
    assert calls == [(done, 6) for done in range(1, 7)]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = build_synthetic_pool(pool, out, **dict(build, names=["darken", "jpeg", "jpeg"]))
    assert again.digest == first.digest
    assert len(calls) == 6
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(OutputConflictError, match="seed: 0 -> 1"):
        build_synthetic_pool(pool, out, **build, seed=1)
    with pytest.raises(OutputConflictError, match="per_image: 1 -> 2"):
        build_synthetic_pool(pool, out, **dict(build, per_image=2))
    other = build_synthetic_pool(pool, out, **build, seed=1, overwrite=True)
    assert other.digest != first.digest
    assert len(list(out.glob("images/*/*.png"))) == 6


def test_any_number_of_workers_gives_the_same(pool: Pool, tmp_path: Path) -> None:
    for workers in (1, 2):
        out = tmp_path / str(workers)
        build_synthetic_pool(pool, out, per_image=2, names=["kadid"], max_side=90, workers=workers)
    assert _content(tmp_path / "1") == _content(tmp_path / "2")


def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(pool: Pool, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    arguments, unbroken = ([str(pool.folder), str(out)] for out in (broken, whole))
    wanted = kills(12, short=3)
    hits = kill_and_resume(rebuild, arguments, unbroken_args=unbroken, kills=wanted, seed=1)
    assert hits == wanted
    assert _content(broken) == _content(whole)
    assert len(_content(whole)) == 2 + 6 * 4


class _Stop(Exception):
    pass


def _interrupted(pool: Pool, out: Path, after: int) -> None:
    def stop(done: int, total: int) -> None:
        if done >= after:
            raise _Stop

    with pytest.raises(_Stop):
        build_synthetic_pool(pool, out, per_image=2, names=FAST, progress=stop)


def test_what_an_interrupted_run_made_is_used_and_what_is_damaged_is_made_again(pool: Pool, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    build_synthetic_pool(pool, whole, per_image=2, names=FAST)
    _interrupted(pool, broken, 8)
    with pytest.raises(PocketiqaError, match="unfinished"):
        Pool.open(broken)
    kept, cut, lost, *_ = sorted((broken / "images").iterdir())
    next(cut.iterdir()).write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    next(lost.iterdir()).unlink()
    made = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    (broken / "images" / f".{cut.name}.123.staged").mkdir()
    build_synthetic_pool(pool, broken, per_image=2, names=FAST)
    assert _content(broken) == _content(whole)
    assert not list(broken.glob("images/.*"))
    assert made == {path: path.stat().st_mtime_ns for path in kept.iterdir()}


def test_two_writers_of_one_pool_are_kept_apart(pool: Pool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _interrupted(pool, out, 4)
    with exclusive(out / ".lock", what="it"), pytest.raises(OutputConflictError, match="another process is writing"):
        build_synthetic_pool(pool, out, per_image=2, names=FAST)


@pytest.mark.parametrize("workers", [1, 2])
def test_references_that_vanished_or_changed_give_rows(pool: Pool, photos: Path, tmp_path: Path, workers: int) -> None:
    (photos / "face.png").unlink()
    Image.new("RGB", (100, 100)).save(photos / "flag.png")
    synthetic = build_synthetic_pool(pool, tmp_path / "out", per_image=3, names=FAST, max_side=90, workers=workers)
    assert len(synthetic) == 6 * 4
    assert Counter(ref.status for ref in synthetic) == {"ok": 16, "missing": 1, "changed": 1, "no_reference": 6}
    for name, status, word in (("face.png", Status.MISSING, "no such file"), ("flag.png", Status.CHANGED, "content")):
        (bad,) = [ref for ref in synthetic if ref.uri.endswith(name)]
        assert bad.status == status
        assert word in bad.reason
        copies = [ref for ref in synthetic if ref.ref_id == bad.id]
        assert len(copies) == 3
        for copy in copies:
            assert (copy.status, copy.group, copy.sha256) == (Status.NO_REFERENCE, bad.group, "")
            assert status.value in copy.reason
            assert word in copy.reason
            assert not (tmp_path / "out" / copy.uri).exists()
            with pytest.raises(ImageError, match="its reference is"):
                synthetic.load(copy)
    assert len({ref.id for ref in synthetic}) == 24


def test_copies_that_changed_nothing_are_duplicates(photos: Path, tmp_path: Path) -> None:
    for path in photos.iterdir():
        path.unlink()
    Image.fromarray(skimage.data.camera()[:100, :100]).save(photos / "gray.png")
    pool = build_pool([str(photos)], tmp_path / "pool")
    names = ["color_saturation_hsv"]
    synthetic = build_synthetic_pool(pool, tmp_path / "out", per_image=3, names=names, max_side=80)
    reference, *copies = synthetic
    assert reference.status == Status.OK
    assert [copy.status for copy in copies] == [Status.DUPLICATE] * 3
    assert all(copy.reason == f"the same bytes as {reference.uri}" for copy in copies)


def test_bad_rows_and_distorted_rows_are_no_references(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"text")
    shutil.copy(photos / "cat.jpg", photos / "cat2.jpg")
    pool = build_pool([str(photos)], tmp_path / "pool")
    assert len(pool) == 8
    assert len(build_synthetic_pool(pool, tmp_path / "out", per_image=1, names=FAST)) == 12


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"per_image": 0}, "per_image is 0, but must be a whole number of at least 1"),
        ({"per_image": 1.5}, "per_image is 1.5"),
        ({"seed": -1}, "seed is -1, but must be a whole number of at least 0"),
        ({"max_side": 63}, "max_side is 63, but must be a whole number of at least 64"),
        ({"workers": 0}, "workers is 0"),
        ({"names": ["jepg"]}, "unknown distortion 'jepg': did you mean 'jpeg'"),
    ],
)
def test_arguments_out_of_range_are_refused_before_anything_is_written(
    argument: dict[str, Any], message: str, pool: Pool, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"per_image": 1, **argument}
    with pytest.raises(PocketiqaError, match=message):
        build_synthetic_pool(pool, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_a_pool_without_clean_images_is_refused(photos: Path, tmp_path: Path) -> None:
    for path in photos.iterdir():
        path.write_bytes(b"text")
    with pytest.raises(PocketiqaError, match="images are bad"):
        build_pool([str(photos)], tmp_path / "pool")
    Image.new("RGB", (80, 80), "red").save(photos / "face.png")
    pool = build_pool([str(photos)], tmp_path / "pool2", max_bad_fraction=1.0)
    (photos / "face.png").unlink()
    assert build_synthetic_pool(pool, tmp_path / "out", per_image=1).manifest.content["statuses"] == {
        "missing": 1,
        "no_reference": 1,
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_said_and_the_run_goes_on_with_more_room(pool: Pool, tmp_path: Path, workers: int) -> None:
    build: dict[str, Any] = {"per_image": 2, "names": FAST}
    build_synthetic_pool(pool, tmp_path / "whole", **build)
    with small_disk(tmp_path / "disk", kib=120):
        out = tmp_path / "disk" / "out"
        with pytest.raises(StorageFullError, match=r"no space left.*run the same command again to resume"):
            build_synthetic_pool(pool, out, workers=workers, **build)
        made = list(out.glob("images/*/*.png"))
        assert made
        for path in made:
            load(path)
        subprocess.run(["mount", "-o", "remount,size=10m", str(tmp_path / "disk")], check=True)
        build_synthetic_pool(pool, out, **build)
        assert _content(out) == _content(tmp_path / "whole")
