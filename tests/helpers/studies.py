"""A small study of textures: rated pictures, a study file over them, and a teacher that can kill its own process."""

import os
import signal
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from teachers.base import TeacherOutput
from tests.helpers.own_teacher import Contrast
from tests.helpers.training import score_of, texture_pool

DYING = "tests.helpers.studies:dying"


def rated_textures(folder: Path) -> str:
    """24 pictures of 8 scenes with the ratings of nobody, two scenes of them for testing; gives the benchmark."""
    pool = texture_pool(folder, scenes=8, versions=3, sizes=((64, 64),))
    lines = [
        f"{ref.uri},{score_of(ref)},{ref.group},{'test' if row >= 18 else 'train'}" for row, ref in enumerate(pool)
    ]
    (folder / "ratings.csv").write_text("\n".join(["image,mos,group,split", *lines]))
    return f"csv:{folder / 'ratings.csv'}?validation=0.5"


def study_tree(benchmark: str) -> dict[str, Any]:
    """Students of 6 ratings and 2 seeds: alone, and with what a teacher says of the rest."""
    step = {"steps": 1, "batch_size": 2, "validate_every_steps": 1, "checkpoint_every_steps": 1, "threads": 1}
    student = {"name": "mobilenetv4_conv_small_035", "max_side": 64, "head_width": 8}
    return {
        "name": "textures",
        "out": "unused",
        "recipe": {
            "pool": {"sources": [benchmark]},
            "label": {"teacher": "tests.helpers.own_teacher:build", "shards": 2},
            "sources": [{"ratings": benchmark, "images": 6}],
            "distill": {
                **step, "student": student, "keep": "last", "tracker": "none", "images": {"crop_size": 64},
                "split": {"validation": 0.4}, "optimizer": {"warmup_steps": 0},
            },
            "evaluate": [{"ratings": benchmark, "split": "validation"}],
        },
        "axes": {"seed": {0: {"seed": 0, "distill.seed": 0}, 1: {"seed": 1, "distill.seed": 1}}},
        "arms": {"alone": {"pool": None, "label": None}, "more": {}},
        "compare": {"baseline": "alone"},
    }  # fmt: skip


def write_study(path: Path, tree: dict[str, Any]) -> str:
    """The file of a study; gives its name."""
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(path)


class Dying(Contrast):
    """As ``Contrast``, but at the second batch it kills the process that it is in, if ``marker`` is not there yet."""

    def __init__(self, marker: Path):
        super().__init__()
        self._marker = marker

    def __call__(self, batch: list[Tensor]) -> TeacherOutput:
        if self.batches and not self._marker.exists():
            self._marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


def dying(marker: str) -> Dying:
    """Builder of ``Dying``."""
    return Dying(Path(marker))
