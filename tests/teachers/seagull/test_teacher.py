import math

import numpy as np
import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError
from pseudo_labels.records import Status
from teachers.base import check_output, check_teacher
from teachers.seagull.build import build_seagull
from teachers.seagull.language import LEVEL_WORDS
from teachers.seagull.model import preprocess
from teachers.seagull.teacher import RegionScore, SeagullTeacher, box_masks, region_input
from tests.teachers.seagull.published import ALL_QUESTIONS


class Talking(SeagullTeacher):
    """A tiny teacher whose language model says given words: its answers are replaced, all else is real.

    Attributes:
        says: answer by question; the level words' logits follow from the region's position in the picture.
    """

    says: dict[str, str]

    def _ask(self, picture, regions, name):  # type: ignore[no-untyped-def] - as the original
        real = super()._ask(picture, regions, name)
        ids = self.tokens.tokenizer(": " + self.says[name])["input_ids"][1:]
        logits = torch.full((len(ids), len(self.tokens.tokenizer)), -9.0)
        for step, id in enumerate(ids):
            logits[step, id] = 2.0
        return [(ids, logits) for _ in real]


@pytest.fixture
def talking(teacher: SeagullTeacher) -> Talking:
    return Talking(teacher.model, teacher.tokens, teacher.asking, facts={}, fitted_with={}, base="tiny", licence="none")


def halves(image: np.ndarray) -> np.ndarray:
    masks = np.zeros((2, *image.shape[:2]), dtype=bool)
    masks[0, : len(image) // 2], masks[1, len(image) // 2 :] = True, True
    return masks


GOOD = {"quality": "good.", "importance": "minor.", "type": "blur.", "severity": "extreme."}


def test_answers_become_numbers_and_words(talking: Talking, photo: np.ndarray):
    talking.says = GOOD
    (score, _) = talking.score_regions(photo, halves(photo))
    assert (score.status, score.reason, score.note) == (Status.OK, "", "")
    assert score.words == {"quality": "good", "importance": "minor", "severity": "extreme"}
    # Softmax of one logit of 2 and four of -9.
    low = math.exp(-11) / (1 + 4 * math.exp(-11))
    assert score.quality == pytest.approx(0.75 * (1 - 4 * low) + low * (0 + 0.25 + 0.5 + 1), abs=1e-9)
    assert score.importance == pytest.approx(0.25, abs=1e-4)
    assert score.severity == pytest.approx(1, abs=1e-3)
    assert 0 < score.quality_std < 0.01
    assert score.type == "blur"
    assert score.answers["type"] == ": blur."


def test_an_answer_without_a_level_word_is_a_row_with_a_status(talking: Talking, photo: np.ndarray):
    talking.says = {**GOOD, "quality": "who knows"}
    (score, _) = talking.score_regions(photo, halves(photo))
    assert score.status == Status.FAILED
    assert score.reason == "the answer on quality has no level word (bad, poor, fair, good, excellent): ': who knows'"
    assert math.isnan(score.quality)
    assert score.importance == pytest.approx(0.25, abs=1e-4)  # nothing that was answered is lost
    talking.says = {**GOOD, "quality": "who knows", "importance": "good"}
    assert "; the answer on importance has no level word" in talking.score_regions(photo, halves(photo))[0].reason


def test_severity_is_read_from_the_type_where_it_is_not_asked(teacher: SeagullTeacher, photo: np.ndarray):
    published = build_seagull(variant="tiny", pretrained=False, precision="fp32", most_tokens=6)
    talking = Talking(
        teacher.model, teacher.tokens, published.asking, facts={}, fitted_with={}, base="tiny", licence="none"
    )
    talking.says = {**GOOD, "type": "mild noise."}
    (score, _) = talking.score_regions(photo, halves(photo))
    assert (score.words["severity"], score.type) == ("mild", "noise")
    talking.says = {**GOOD, "type": "noise."}
    (score, _) = talking.score_regions(photo, halves(photo))
    assert (score.status, math.isnan(score.severity), score.type) == (Status.OK, True, "noise")


def test_a_region_is_scored_as_if_it_were_the_only_one(photo: np.ndarray):
    options = {"variant": "tiny", "pretrained": False, "precision": "fp32", "most_tokens": 3}
    teacher = build_seagull(**options)
    masks = halves(photo)
    both = asked_logits(teacher, photo, masks)
    each = [asked_logits(teacher, photo, masks[row : row + 1])[0] for row in range(2)]
    torch.testing.assert_close(both, torch.stack(each), rtol=1e-4, atol=1e-4)
    together = asked_logits(build_seagull(**options, together=True), photo, masks)
    assert (together - both).abs().max() > 1e-3


def asked_logits(teacher: SeagullTeacher, photo: np.ndarray, masks: np.ndarray) -> torch.Tensor:
    """First logits on the quality of each region."""
    picture = teacher.look(preprocess(photo, teacher.side_px))
    regions = [region_input(photo, mask, teacher.side_px) for mask in masks]
    stacked = torch.stack([region.mask for region in regions]), torch.stack([region.crop for region in regions])
    with torch.inference_mode():
        embedded = teacher.model.embed(picture, *stacked, together=teacher.asking.together)
    return torch.stack([logits[0] for _, logits in teacher._ask(picture, embedded, "quality")])


def test_bad_masks_are_rows_with_reasons_and_nothing_is_lost(talking: Talking, photo: np.ndarray):
    talking.says = GOOD
    thin, tiny, empty, other = (np.zeros(photo.shape[:2], dtype=bool) for _ in range(4))
    thin[4, 10:60] = True
    tiny[50, 70] = True
    large = np.zeros((400, 300, 3), dtype=np.uint8)
    scores = talking.score_regions(photo, [thin, empty, other[:50], halves(photo)[0], tiny])
    assert [score.status for score in scores] == ["ok", "failed", "failed", "ok", "ok"]
    assert scores[0].note == scores[4].note == "one pixel thin: the crop takes that pixel"
    assert scores[1].reason == "the region is empty: no pixel of its mask is inside the picture"
    assert scores[2].reason == "the mask has the shape (50, 140), the picture (90, 140)"
    assert scores[3].quality == scores[0].quality
    lost = np.zeros((400, 300), dtype=bool)
    lost[1, 1] = True  # between the pixels that 128 x 128 takes
    (score,) = talking.score_regions(large, [lost])
    assert score.status == Status.TOO_SMALL
    assert score.reason == "the region (1 pixels of 120000) vanishes at 128x128"


def test_no_regions_give_no_scores(teacher: SeagullTeacher, photo: np.ndarray):
    assert teacher.score_regions(photo, []) == []


def test_masks_are_read_as_they_are_needed(talking: Talking, photo: np.ndarray):
    talking.says = GOOD
    most = talking.asking.regions_at_once
    drawn: list[int] = []
    scored: list[int] = []

    def masks():  # type: ignore[no-untyped-def] - a generator
        for number in range(3 * most):
            assert number - len(scored) < most + 1
            drawn.append(number)
            yield halves(photo)[number % 2]

    original = talking._scores
    talking._scores = lambda picture, regions, questions: (
        scored.extend(range(len(regions)))
        or original(  # type: ignore[method-assign]
            picture, regions, questions
        )
    )
    assert len(talking.score_regions(photo, masks())) == len(drawn) == 3 * most


def test_other_images_are_refused(teacher: SeagullTeacher, photo: np.ndarray):
    for wrong in (photo.astype(np.float32), photo[:, :, :1], photo[:0]):
        with pytest.raises(PocketiqaError, match=r"uint8 \[height, width, 3\] is needed"):
            teacher.score_regions(wrong, [])


def test_the_crop_leaves_out_the_last_row_and_column(photo: np.ndarray):
    mask = np.zeros(photo.shape[:2], dtype=np.uint8)
    mask[10:31, 20:71] = 1
    mask[15, 15] = 1  # the crop is of the box, not of the mask's shape
    region = region_input(photo, mask, 64)
    assert torch.equal(region.crop, preprocess(np.ascontiguousarray(photo[10:30, 15:70]), 64))
    assert region.mask.dtype == torch.bool
    with pytest.raises(ImageError, match="the region is empty"):
        region_input(photo, mask * 0, 64)


def test_boxes_become_masks():
    boxes = np.array([[2.4, 1, 3, 2], [-5, -5, 6, 7], [8.6, 3, 0, 0], [30, 30, 2, 2], [0, 0, 99, 99]])
    masks = list(box_masks(boxes, 6, 10))
    assert [int(mask.sum()) for mask in masks] == [3 * 2, 1 * 2, 1, 0, 60]
    assert masks[0][1:3, 2:5].all()
    assert masks[2][3, 9]
    for wrong, said in [
        ([[1, 2, 3]], r"boxes of shape \(1, 3\)"),
        ([[1, 2, float("nan"), 3]], "box 0 is .*give finite numbers"),
        ([[0, 0, 1, 1], [1, 2, -1, 3]], "box 1 is .*sizes at least 0"),
    ]:
        with pytest.raises(PocketiqaError, match=said):
            list(box_masks(np.array(wrong), 6, 10))


def test_it_scores_whole_images_as_every_teacher(talking: Talking, photo: np.ndarray):
    talking.says = GOOD
    check_teacher(talking, "seagull")
    items = [talking.preprocess(photo, None), talking.preprocess(photo[:40], None)]
    output = check_output(talking(items), 2, (), "seagull")
    whole = talking.score_regions(photo, [np.ones(photo.shape[:2], dtype=bool)])[0]
    assert output.score.tolist() == pytest.approx([whole.quality] * 2, abs=1e-6)
    talking.says = {"quality": "???"}
    assert bool(check_output(talking(items), 2, (), "seagull").score.isnan().all())


def test_the_stamp_says_how_is_asked(teacher: SeagullTeacher):
    options = teacher.stamp.options
    assert options["questions"] == list(ALL_QUESTIONS)
    assert (options["together"], options["variant"], options["precision"]) == (False, "tiny", "fp32")
    assert teacher.stamp.scale.startswith("expectation over bad")


def test_a_region_without_answers_is_not_a_number():
    score = RegionScore()
    assert all(math.isnan(getattr(score, name)) for name in LEVEL_WORDS)
    assert score.type == "unknown"
