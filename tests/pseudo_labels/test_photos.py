"""The photographs that need no download."""

import socket
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from pseudo_labels import photos
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import load
from pseudo_labels.photos import bundled_photographs, export_photographs, photograph_licences
from pseudo_labels.pool import build_pool
from pseudo_labels.records import Status

skimage_data = pytest.importorskip("skimage.data")


def test_they_are_what_their_packages_show() -> None:
    photographs = bundled_photographs()
    assert len(photographs) == 13
    np.testing.assert_array_equal(load(photographs["astronaut"]), skimage_data.astronaut())
    np.testing.assert_array_equal(load(photographs["motorcycle"]), skimage_data.stereo_motorcycle()[0])
    np.testing.assert_array_equal(load(photographs["camera"])[..., 1], skimage_data.camera())


def test_each_is_large_enough_and_has_a_licence() -> None:
    photographs = bundled_photographs()
    assert all(min(load(path).shape[:2]) >= 300 for path in photographs.values())
    assert photograph_licences().keys() == photographs.keys()


def test_nothing_touches_the_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    assert len(export_photographs(tmp_path)) == 13


def test_export_makes_a_pool_of_13_scenes(tmp_path: Path) -> None:
    copies = export_photographs(tmp_path / "photos")
    pool = build_pool([str(tmp_path / "photos")], tmp_path / "pool")
    assert [Path(ref.uri) for ref in pool] == copies
    assert {ref.status for ref in pool} == {Status.OK}
    assert len({ref.group for ref in pool}) == 13
    hashes = [int(ref.dhash, 16) for ref in pool]
    assert min((one ^ other).bit_count() for one, other in combinations(hashes, 2)) > 12  # measured 16


def test_exporting_again_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    copies = export_photographs(tmp_path)
    times = [path.stat().st_mtime_ns for path in copies]
    copies[0].write_bytes(b"damaged")
    assert export_photographs(tmp_path) == copies
    assert [path.stat().st_mtime_ns for path in copies[1:]] == times[1:]
    assert copies[0].read_bytes() == bundled_photographs()["astronaut"].read_bytes()
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_without_the_packages_the_next_step_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "find_spec", lambda name: None)
    with pytest.raises(PocketiqaError, match="install scikit-image"):
        bundled_photographs()
