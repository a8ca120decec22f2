"""The contact sheet shows what the operators make."""

from pathlib import Path

import numpy as np
from PIL import Image

from pseudo_labels.crops import generator
from pseudo_labels.distort import CATALOGUE, contact_sheet, write_contact_sheet
from pseudo_labels.distort.preview import TILE_PX


def _count(sheet: np.ndarray, tile: np.ndarray) -> int:
    """How often the tile is on the sheet, pixel by pixel."""
    corners = np.argwhere(sheet[: -TILE_PX + 1, : -TILE_PX + 1, 0] == tile[0, 0, 0])
    corners = corners[(sheet[tuple(corners.T)] == tile[0, 0]).all(axis=-1)]
    return sum(np.array_equal(sheet[y : y + TILE_PX, x : x + TILE_PX], tile) for y, x in corners)


def test_sheet_shows_every_distortion_at_every_level(tmp_path: Path) -> None:
    """On a picture that needs no resizing, so that the tiles are known."""
    rgb = np.random.default_rng(0).integers(0, 200, (TILE_PX, TILE_PX, 3)).astype(np.uint8)
    write_contact_sheet(rgb, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert _count(sheet, rgb) == len(CATALOGUE)
    for name in ("gaussian_blur", "jitter", "camera_contrast"):
        for level in (1, 2, 3, 4, 5):
            assert _count(sheet, CATALOGUE[name].apply(rgb, level / 5, generator("preview", name))) == 1


def test_sheet_takes_any_shape_and_is_repeatable(photo: np.ndarray) -> None:
    sheet = contact_sheet(photo)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] > 2 * 6 * TILE_PX
    assert sheet.shape[0] > 16 * TILE_PX
    assert np.array_equal(sheet, contact_sheet(photo.copy()))
    # Labels: ink on the strip above the first row of tiles.
    assert (sheet[: TILE_PX // 6].min(axis=-1) < 80).sum() > 100
