import io

import pytest
from PIL import Image

from distill.trust.drawing import draw
from pseudo_labels.errors import PocketiqaError
from tests.distill.trust.conftest import Compared


def test_the_picture_is_small_enough_for_a_readme(compared: Compared):
    data = compared.out.with_suffix(".png").read_bytes()
    assert len(data) < 200_000
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    assert picture.width == 900


def test_without_figures_there_is_nothing_to_draw(compared: Compared):
    bare = compared.result | {"models": [{"name": "tiny"}], "gmad": []}
    with pytest.raises(PocketiqaError, match="--test catalogue"):
        draw(bare, [])
