from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from distill.scoring import best_page
from distill.scoring.best_page import BestPage
from distill.scoring.inputs import ImageSource
from distill.scoring.shots import Shot
from pseudo_labels.images import DEFAULT_LIMITS
from pseudo_labels.records import Status
from students.damage import Damage
from students.meaning.model_record import ModelName
from tests.helpers.pools import photograph

PAGE = BestPage(ModelName("pocket", "a" * 64), DEFAULT_LIMITS, keep=1)


@pytest.fixture
def images(tmp_path: Path) -> dict[str, ImageSource]:
    names = ["<b>1.png", "2.png", "3.png", "gone.png", "bad.png"]
    for name in names[:3]:
        Image.fromarray(photograph("coffee", 96)).save(tmp_path / name)
    return {name: ImageSource(str(tmp_path / name), tmp_path / name) for name in names}


def shot(name: str, group: int, size: int, rank: int, **further: Any) -> Shot:
    kept = rank == 1
    return Shot(name, 0.5, Status.OK, "", group=group, photographs=size, rank=rank, kept=kept, **further)


def test_groups_are_pictures_and_the_others_are_names(images: dict[str, ImageSource]):
    rows = [
        shot("<b>1.png", 1, 3, 1, wins=0.8, confidence=0.7, damage=Damage("none", 0.0, 0.9)),
        shot("2.png", 1, 3, 2, wins=0.6, damage=Damage("motion", 0.625, 0.8)),
        shot("gone.png", 1, 3, 3, wins=0.1),
        shot("3.png", 2, 1, 1),
        Shot("bad.png", None, Status.CORRUPT, "cut off"),
    ]
    page = PAGE.html(rows, images)
    assert page.count("<figure") == 3
    assert page.count('src="data:image/jpeg;base64,') == 2
    assert "cannot be shown" in page
    assert "&lt;b&gt;1.png" in page
    assert "<b>1.png" not in page
    assert page.count('class="kept"') == 1
    assert "The best of each group is framed in green" in page
    for text in ("0.800", "0.700", "3.png", "bad.png", "cut off", "pocket (aaaaaaaaaaaa...)"):
        assert text in page
    assert "http" not in page.replace("http-equiv", "")
    assert ", motion " in page
    assert "0.625" in page
    assert ", none" not in page
    assert ", motion " not in replace(PAGE, types=False).html(rows, images)


def test_no_group_and_more_than_a_page_holds(images: dict[str, ImageSource], monkeypatch: pytest.MonkeyPatch):
    assert "No two photographs are of one moment" in PAGE.html([shot("3.png", 1, 1, 1)], images)
    monkeypatch.setattr(best_page, "_MOST_SHOWN", 3)
    rows = [shot(name, group, 2, rank) for group in (1, 2) for rank, name in enumerate(("2.png", "3.png"), start=1)]
    page = PAGE.html(rows, images)
    assert page.count("<figure") == 2
    assert "1 more groups are not shown here" in page
