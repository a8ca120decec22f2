import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from teachers.seagull.language import QUESTIONS
from teachers.seagull.model import (
    PIXEL_MEAN,
    PIXEL_STD,
    VARIANTS,
    Picture,
    language_config,
    meta_model,
    nearest_mask,
    parameter_counts,
    preprocess,
    variant_named,
)
from teachers.seagull.teacher import SeagullTeacher, region_input
from tests.teachers.seagull.plain import bilinear_rows


@pytest.mark.parametrize(("height", "width"), [(90, 140), (140, 90), (64, 64), (300, 200)])
def test_a_picture_is_shrunk_by_its_shorter_side_and_then_stretched(height: int, width: int):
    side = 64
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    short = min(height, width)
    size = (width * side // short, height * side // short)
    shrunk = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)).astype(np.float64) / 255
    values = (shrunk - PIXEL_MEAN) / PIXEL_STD
    rows, columns = bilinear_rows(size[1], side), bilinear_rows(size[0], side)
    expected = np.einsum("ih,hwc,jw->cij", rows, values, columns)
    given = preprocess(image, side)
    assert given.dtype == torch.float32
    np.testing.assert_allclose(given.numpy(), expected, atol=2e-6)


def test_the_crop_of_a_thin_region_takes_little_memory():
    line = np.random.default_rng(0).integers(0, 256, (1, 5000, 3), dtype=np.uint8)
    assert preprocess(line, 512).shape == (3, 512, 512)  # 512 x 2,560,000 pixels on the authors' way
    assert preprocess(line.transpose(1, 0, 2), 512).shape == (3, 512, 512)


def test_a_mask_is_resized_by_the_pixel_above_and_left():
    mask = np.random.default_rng(0).random((37, 111)) > 0.5
    resized = nearest_mask(mask, 64)
    for row, column in [(0, 0), (63, 63), (13, 50), (40, 1)]:
        assert resized[row, column] == mask[int(row * 37 / 64), int(column * 111 / 64)]


def test_the_published_model_has_seven_billion_parameters():
    sizes = VARIANTS["7b"]
    assert sum(parameter_counts(meta_model(sizes, language_config(sizes.language))).values()) == 7_057_466_074


def test_an_unknown_variant_is_named():
    with pytest.raises(PocketiqaError, match="unknown SEAGULL variant '13b': choose 7b, tiny"):
        variant_named("13b")


@pytest.fixture(scope="module")
def asked(teacher: SeagullTeacher, photo: np.ndarray) -> tuple[Picture, Tensor]:
    """A picture and three of its regions, embedded."""
    masks = np.zeros((3, *photo.shape[:2]), dtype=bool)
    masks[0, :40], masks[1, 40:], masks[2, 20:60, 30:90] = True, True, True
    regions = [region_input(photo, mask, teacher.side_px) for mask in masks]
    picture = teacher.look(preprocess(photo, teacher.side_px))
    with torch.inference_mode():
        stacked = torch.stack([region.mask for region in regions]), torch.stack([region.crop for region in regions])
        return picture, teacher.model.embed(picture, *stacked)


def test_the_language_model_sees_one_map_row_by_row(teacher: SeagullTeacher, asked: tuple[Picture, Tensor]):
    picture, _ = asked
    level = picture.maps[2]
    assert level.shape == (32, 8, 8)
    first, second = teacher.model.projector[0], teacher.model.projector[2]
    with torch.inference_mode():
        expected = second(torch.nn.functional.gelu(first(level[:, 1, 3])))
    torch.testing.assert_close(picture.tokens[1 * 8 + 3], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("question", ["quality", "importance"])
def test_shared_keys_and_values_change_no_answer(question: str, teacher: SeagullTeacher, asked: tuple[Picture, Tensor]):
    picture, regions = asked
    model, prompt = teacher.model, teacher.tokens.prompt(QUESTIONS[question])
    ids, logits = model.answer(picture, regions, prompt, most_tokens=5, end=-1)
    assert ids.shape == (3, 5)
    assert logits.shape == (3, 5, model.language.config.vocab_size)
    with torch.inference_mode():
        for row, region in enumerate(regions):
            # The whole sequence at once, as it stands in the published code: words, picture, words, region, words.
            before, between, after = (model.words(part) for part in vars(prompt).values())
            given = torch.cat([before, picture.tokens, between, region, after])
            for step in range(5):
                expected = model.language(inputs_embeds=given[None], use_cache=False).logits[0, -1]
                torch.testing.assert_close(logits[row, step], expected, rtol=1e-4, atol=1e-4)
                assert ids[row, step] == expected.argmax()
                given = torch.cat([given, model.words([int(ids[row, step])])])


def test_what_stands_before_a_region_is_computed_once(teacher: SeagullTeacher, asked: tuple[Picture, Tensor]):
    picture = Picture(asked[0].maps, asked[0].tokens)
    prompt, other = (teacher.tokens.prompt(QUESTIONS[name]) for name in ("quality", "type"))
    teacher.model.answer(picture, asked[1], prompt, most_tokens=2, end=-1)
    cache = picture.cache
    assert cache is not None
    length = len(prompt.before_image) + 64 + len(prompt.before_region)
    assert cache.get_seq_length() == length
    teacher.model.answer(picture, asked[1][:1], other, most_tokens=4, end=-1)
    assert picture.cache is cache
    assert cache.get_seq_length() == length  # answers are not appended to what is shared


def test_answers_end_together(teacher: SeagullTeacher, asked: tuple[Picture, Tensor]):
    prompt = teacher.tokens.prompt(QUESTIONS["quality"])
    ids, _ = teacher.model.answer(asked[0], asked[1][:1], prompt, most_tokens=5, end=-1)
    ended, logits = teacher.model.answer(asked[0], asked[1][:1], prompt, most_tokens=5, end=int(ids[0, 1]))
    first = ids[0].tolist().index(int(ids[0, 1])) + 1
    assert ended.shape[1] == logits.shape[1] == first
