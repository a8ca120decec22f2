import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from distill.data import pixel_cache
from distill.data.pixel_cache import PixelCache, build_pixels
from pseudo_labels import images
from pseudo_labels.errors import IntegrityError
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status
from students.preprocess import Preprocess
from tests.helpers.training import texture_pool

SIZES = ((80, 96), (150, 70), (64, 300))
PREPROCESS = Preprocess(max_side=96)


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr(pixel_cache, "SHARD_ROWS", 5)
    return texture_pool(tmp_path, scenes=4, versions=3, sizes=SIZES)


def shards(root: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of each file: a shard that was written anew has new times."""
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("shard-*/*")
    }


def test_every_row_is_what_decoding_and_resizing_give(pool: Pool, tmp_path: Path):
    cache = build_pixels(pool, PREPROCESS, tmp_path / "cache", workers=3)
    for row, ref in enumerate(pool):
        expected = PREPROCESS.resize(pool.load(ref))
        assert tuple(cache.sizes[row]) == expected.shape[:2]
        np.testing.assert_array_equal(cache.read(row), expected)
        np.testing.assert_array_equal(cache.read(row, 10, 7), expected[10:17])


def test_building_again_writes_nothing_and_other_settings_do_not_meet(pool: Pool, tmp_path: Path):
    build_pixels(pool, PREPROCESS, tmp_path / "cache")
    before = shards(tmp_path / "cache")
    assert len(before) == 2 * 3
    build_pixels(pool, PREPROCESS, tmp_path / "cache")
    assert shards(tmp_path / "cache") == before
    build_pixels(pool, Preprocess(max_side=64), tmp_path / "cache")
    assert len(shards(tmp_path / "cache")) == 2 * len(before)


def meet(meeting: threading.Barrier) -> None:
    meeting.wait()


def test_pixels_of_another_decoder_are_not_used(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build_pixels(pool, PREPROCESS, tmp_path / "cache")
    monkeypatch.setattr(images, "VERSION", images.VERSION + 1)
    build_pixels(pool, PREPROCESS, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_two_processes_build_the_same_bytes_as_one(pool: Pool, tmp_path: Path):
    build_pixels(pool, PREPROCESS, tmp_path / "one")
    meeting = threading.Barrier(2, timeout=60)
    with ThreadPoolExecutor(2) as processes:
        work = [
            processes.submit(
                build_pixels, pool, PREPROCESS, tmp_path / "two", rank=rank, world=2, barrier=partial(meet, meeting)
            )
            for rank in range(2)
        ]
        assert all(tuple(cache.result().sizes[11]) == (80, 96) for cache in work)
    content = [{name: data for name, (_, data) in shards(tmp_path / root).items()} for root in ("one", "two")]
    assert content[0] == content[1]


@pytest.mark.parametrize("distortion", ["flip", "cut", "no index", "edited index", "no shard"])
def test_damage_is_found_and_only_that_shard_is_made_again(pool: Pool, tmp_path: Path, distortion: str):
    root = tmp_path / "cache"
    build_pixels(pool, PREPROCESS, root)
    before = shards(root)
    shard = next(root.rglob("shard-00001"))
    data, index = shard / "pixels.bin", shard / "index.json"
    if distortion == "flip":
        content = bytearray(data.read_bytes())
        content[1000] ^= 1
        data.write_bytes(content)
    elif distortion == "cut":
        os.truncate(data, 1000)
    elif distortion == "no index":
        index.unlink()
    elif distortion == "edited index":
        index.write_bytes(index.read_bytes().replace(b"96", b"95", 1))
    else:
        shutil.rmtree(shard)
    build_pixels(pool, PREPROCESS, root)
    after = shards(root)
    assert {name: data for name, (_, data) in after.items()} == {name: data for name, (_, data) in before.items()}
    made = {name.split("/")[1] for name in after if before[name][0] != after[name][0]}
    assert made == {"shard-00001"}


def test_a_file_that_shrinks_while_it_is_read_is_an_error_not_a_crash(pool: Pool, tmp_path: Path):
    cache = build_pixels(pool, PREPROCESS, tmp_path / "cache")
    os.truncate(next((tmp_path / "cache").rglob("shard-00002/pixels.bin")), 100)
    with pytest.raises(IntegrityError, match="ends early"):
        cache.read(11)
    with pytest.raises(IntegrityError, match=r"incomplete \(shard 2\)"):
        PixelCache(next((tmp_path / "cache").glob("pixels-*")), len(pool))


def test_an_image_that_vanished_is_listed_and_tried_again_only_by_a_new_run(pool: Pool, tmp_path: Path):
    path = Path(pool[6].uri)
    path.rename(tmp_path / "away.png")
    cache = build_pixels(pool, PREPROCESS, tmp_path / "cache")
    assert cache.statuses[6][0] == Status.MISSING
    assert tuple(cache.sizes[6]) == (0, 0)
    (tmp_path / "away.png").rename(path)
    assert list(build_pixels(pool, PREPROCESS, tmp_path / "cache", retry_failed=False).statuses) == [6]
    assert not build_pixels(pool, PREPROCESS, tmp_path / "cache").statuses


def test_an_altered_image_is_not_cached(pool: Pool, tmp_path: Path):
    Path(pool[2].uri).write_bytes(Path(pool[3].uri).read_bytes())
    assert build_pixels(pool, PREPROCESS, tmp_path / "cache").statuses[2][0] == Status.CHANGED


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path):
    """32 images of 2 MB pass through a shard; at most those in flight may be in memory."""
    pool = texture_pool(tmp_path, scenes=32, versions=1, sizes=((800, 800),))
    build_pixels(pool, Preprocess(max_side=64), tmp_path / "warm", workers=1)
    before = peak_memory_kib(reset=True)
    cache = build_pixels(pool, Preprocess(max_side=800), tmp_path / "cache", workers=1)
    for row in range(len(pool)):
        cache.read(row)
    assert peak_memory_kib() - before < 20_000  # of 61 MB of pixels; measured 10 MB


def peak_memory_kib(*, reset: bool = False) -> int:
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError as error:
        pytest.skip(f"peak memory cannot be measured here: {error}")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def test_progress_reaches_the_total(pool: Pool, tmp_path: Path):
    calls: list[tuple[int, int]] = []
    build_pixels(pool, PREPROCESS, tmp_path / "cache", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(5, 12), (10, 12), (12, 12)]
