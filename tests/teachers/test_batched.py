"""Batches of equal shapes through a teacher; what becomes of scores and features that cannot be used."""

import numpy as np
import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import ImageRef, Status
from teachers.base import TeacherOutput
from teachers.batched import Predictor
from teachers.reading import Prepared
from tests.helpers.own_teacher import Contrast


def rows(*shapes: tuple[int, int]) -> list[Prepared]:
    generator = torch.Generator().manual_seed(0)
    items = [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for shape in shapes]
    return [Prepared(ImageRef(id=f"{number}", uri=f"{number}.png"), item) for number, item in enumerate(items)]


def predict(teacher: Contrast, prepared: list[Prepared], batch_size: int = 4, features: tuple[str, ...] = ("cells",)):
    said: list[str] = []
    steps: list[int] = []
    predictor = Predictor(teacher, batch_size=batch_size, features=features, warn=said.append)
    labels, arrays = predictor.shard(prepared, len(prepared), step=steps.append)
    return labels, arrays, said, steps


def test_neighbours_of_one_shape_are_scored_together():
    teacher = Contrast()
    labels, arrays, said, steps = predict(teacher, rows((64, 64), (64, 64), (64, 80), (64, 80), (64, 80), (64, 64)), 2)
    assert teacher.batches == [2, 2, 1, 1]
    assert (sum(steps), said) == (6, [])
    assert [label.status for label in labels] == [Status.OK] * 6
    assert arrays["cells"].shape == (6, 1, 4, 4)
    assert arrays["cells"].dtype == np.float16


def test_a_score_does_not_depend_on_the_batch():
    prepared = rows(*[(64, 64)] * 5)
    alone, _, _, _ = predict(Contrast(), prepared, 1)
    together, _, _, _ = predict(Contrast(), prepared, 5)
    np.testing.assert_allclose([one.score for one in alone], [one.score for one in together], atol=1e-6)


def test_memory_that_runs_out_halves_the_batch_for_good():
    teacher = Contrast(memory_images=2)
    labels, _, said, steps = predict(teacher, rows(*[(64, 64)] * 8), 8)
    assert [label.status for label in labels] == [Status.OK] * 8
    assert teacher.batches == [2, 2, 2, 2]
    assert [text.split(":")[0] for text in said] == [
        "out of memory with a batch of 8 images", "out of memory with a batch of 4 images",
    ]  # fmt: skip
    assert sum(steps) == 8


def test_an_image_that_fits_in_no_batch_fails_alone():
    labels, _, _, _ = predict(Contrast(memory_images=0), rows((64, 64)), 2)
    assert labels[0].status == Status.FAILED
    assert "out of memory with a batch of 1" in labels[0].reason


def test_rows_without_an_input_keep_their_reason():
    bad = Prepared(ImageRef(id="bad", uri="bad.png"), None, Status.UNREADABLE, "cut off")
    labels, arrays, _, steps = predict(Contrast(), [bad, *rows((64, 64))])
    assert (labels[0].status, labels[0].reason) == (Status.UNREADABLE, "cut off")
    assert not arrays["cells"][0].any()
    assert arrays["cells"][1].any()
    assert sum(steps) == 2


def test_a_score_that_is_no_number_fails_its_row():
    labels, _, _, _ = predict(Contrast(nan_below=1.1), rows((64, 64)))
    assert labels[0].status == Status.FAILED
    assert labels[0].reason == "the teacher gave a score of nan"


def test_a_feature_above_the_range_of_fp16_fails_its_row():
    class Loud(Contrast):
        def __call__(self, batch: list[torch.Tensor]) -> TeacherOutput:
            output = super().__call__(batch)
            return TeacherOutput(output.score, None, {"cells": output.features["cells"] * 1e6})

    labels, _, _, _ = predict(Loud(), rows((64, 64)))
    assert "feature 'cells' is not finite in fp16" in labels[0].reason


def test_a_shard_without_a_good_row_has_empty_features():
    bad = Prepared(ImageRef(id="bad", uri="bad.png"), None, Status.UNREADABLE, "cut off")
    _, arrays, _, _ = predict(Contrast(), [bad, bad])
    assert arrays["cells"].shape == (2, 0)


def test_more_rows_than_the_shard_has_are_an_error():
    predictor = Predictor(Contrast(), batch_size=2, features=(), warn=lambda text: None)
    with pytest.raises(PocketiqaError, match="row 1 of a shard of 1 came out of order"):
        predictor.shard(rows((64, 64), (64, 64)), 1, step=lambda done: None)
