"""Files that the first version wrote: a store, a finished student and a checkpoint open, and count as equal.

``tests/first_version`` was written by the state before the layout and the names of the code changed: the recipe
``tiny`` with a ``test_efficientnet`` (levels 4 and 8, map stride 8). Formats on disk have not changed since.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from distill.recipe.recipe import load_recipe
from distill.training.checkpoint import Checkpoints, load_tensors
from pseudo_labels.audit.store import audit_store
from pseudo_labels.files import digest_of
from pseudo_labels.records import Status
from pseudo_labels.store import LabelStore
from students.base import score_images
from students.shipped import NAMES
from students.storage import load_student
from teachers.registry import build_teacher

FOLDER = Path(__file__).parent / "first_version"
SETTINGS = ["distill.student.name=test_efficientnet", "distill.student.levels=[4,8]", "distill.student.map_stride=8"]


def test_the_store_opens_whole_and_holds_the_labels():
    store = LabelStore.open(FOLDER / "labels")
    assert (store.is_complete, store.missing(), store.verify()) == (True, [], [])
    labels = store.labels()
    assert set(labels["status"].to_pylist()) == {Status.OK}
    second = labels.slice(1, 1).to_pylist()[0]
    assert second["uri"].endswith("gaussian_blur-2.53.png")
    assert second["score"] == 0.5092499256134033
    assert audit_store(FOLDER / "labels").ok


def test_the_teacher_of_the_store_is_today_the_same_one():
    spec = LabelStore.open(FOLDER / "labels").spec
    assert build_teacher("reference").stamp.digest == spec.stamp.digest


def test_the_student_opens_and_scores_as_it_did():
    student = load_student(FOLDER / "training" / "student")
    image = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    # Equal to the bit on the machine that wrote it; convolutions of other processors round in another order.
    assert float(score_images(student, [image])[0].score) == pytest.approx(0.5003846883773804, abs=1e-6)


def test_the_checkpoint_opens_and_holds_the_student():
    record = json.loads((FOLDER / "training" / "checkpoints" / "step-00000006" / "progress.json").read_text())
    checkpoint = Checkpoints(FOLDER / "training" / "checkpoints", record["run"]).load(6)
    assert checkpoint.progress.step == 6
    load_tensors(load_student(FOLDER / "training" / "student"), checkpoint.tensors["ema"])


def test_the_recipe_that_made_the_run_still_describes_it():
    """Else the run would be refused as one of other settings, and trained anew."""
    config = load_recipe("tiny", SETTINGS).distill
    assert config is not None
    written = json.loads((FOLDER / "training" / "manifest.json").read_text())["spec"]
    today = json.loads(json.dumps(config.determining()))
    assert {key: written[key] for key in today} == today
    assert digest_of({key: written[key] for key in today}) == digest_of(today)


def test_the_shipped_students_are_those_of_the_first_version():
    from students.runtime import Scorer

    assert {name: Scorer(name).contract.name for name in NAMES} == {name: name for name in NAMES}
