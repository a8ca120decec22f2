from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pseudo_labels.errors import PocketiqaError
from teachers.seagull.language import (
    IMAGE_MARK,
    LEVEL_WORDS,
    PUBLISHED_QUESTIONS,
    QUESTIONS,
    RegionTokenizer,
    answer_text,
    level_of,
    mixture_of,
    question_text,
    train_tokenizer,
)


@pytest.fixture(scope="module")
def tokens() -> RegionTokenizer:
    return train_tokenizer()


def tokenizer_of(words: list[str], **options: Any) -> PreTrainedTokenizerFast:
    """A tokenizer that knows whole words, with a space before each, as LLaMA's does; letters for all others."""
    vocabulary = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(":", " :")  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])  # type: ignore[assignment]
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", **options}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def answered(tokens: RegionTokenizer, text: str, logits: dict[str, float] | None = None) -> tuple[list[int], Tensor]:
    """An answer as the model would give it, each of its tokens by far the likeliest, but for single given logits."""
    whole, length = tokens.with_answer(QUESTIONS["quality"], text)
    ids = list(whole.after_region[-length:])
    scores = torch.full((length, len(tokens.tokenizer)), -20.0)
    scores[torch.arange(length), torch.tensor(ids)] = 0.0
    for word, value in (logits or {}).items():
        token = tokens.tokenizer(f": {word}")["input_ids"][-1]
        scores[:, token] = value
    return ids, scores


def test_the_question_is_the_published_one_to_the_letter():
    assert question_text(QUESTIONS["quality"]) == (
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the human's questions. USER: <image>\nThis provides an overview of the image."
        "\n Please answer the following questions about the provided region. Note: Distortions include: blur, "
        "colorfulness, compression, contrast exposure and noise.\n Here is the region <global><local>. Analyze the "
        "quality of this region. ASSISTANT:"
    )
    assert QUESTIONS["type"] == "Provide the distortion type of this region."
    assert QUESTIONS["importance"].startswith("Consider the impact of this region on the overall image quality. Ana")
    assert set(PUBLISHED_QUESTIONS) == {"quality", "importance", "type"}


def test_the_sequence_is_cut_at_the_image_and_at_the_region(tokens: RegionTokenizer):
    prompt = tokens.prompt(QUESTIONS["quality"])
    before, after = question_text(QUESTIONS["quality"]).split(IMAGE_MARK)
    pieces = [tokens.tokenizer(piece)["input_ids"] for piece in (before, after)]
    # One beginning of sequence; the second piece is tokenized by itself, and begins with its own first token.
    assert [*prompt.before_image, -1, *prompt.before_region, *tokens.marks, *prompt.after_region] == [
        *pieces[0], -1, *pieces[1][1:]
    ]  # fmt: skip
    ids = [*prompt.before_image, *prompt.before_region, *prompt.after_region]
    assert ids.count(tokens.bos) == 1
    assert ids[0] == tokens.bos
    assert not set(ids) & set(tokens.marks)


def test_all_questions_of_a_picture_begin_alike(tokens: RegionTokenizer):
    prompts = [tokens.prompt(question) for question in QUESTIONS.values()]
    assert len({(prompt.before_image, prompt.before_region) for prompt in prompts}) == 1
    assert len({prompt.after_region for prompt in prompts}) == len(QUESTIONS)


def test_the_marks_of_a_region_are_the_last_two_ids(tokens: RegionTokenizer):
    assert tokens.marks == (len(tokens.tokenizer) - 2, len(tokens.tokenizer) - 1)


def test_a_tokenizer_that_has_the_marks_keeps_their_ids(tokens: RegionTokenizer):
    assert RegionTokenizer(tokens.tokenizer).marks == tokens.marks


def test_a_tokenizer_that_adds_no_beginning_gets_one():
    words = ["bad", *["poor", "fair", "good", "excellent"], *LEVEL_WORDS["importance"], *LEVEL_WORDS["severity"], ":"]
    tokenizer = tokenizer_of(words)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])  # type: ignore[assignment]
    prompt = RegionTokenizer(tokenizer).prompt("good")
    assert prompt.before_image[0] == 1
    assert [*prompt.before_image, *prompt.before_region].count(1) == 1


def test_an_answer_ends_its_sequence(tokens: RegionTokenizer):
    whole, length = tokens.with_answer(QUESTIONS["quality"], "Quality: good.")
    assert whole.after_region[-1] == tokens.eos
    assert tokens.text(whole.after_region[-length:]) == "Quality: good."
    assert whole.after_region[:-length] == tokens.prompt(QUESTIONS["quality"]).after_region


def test_the_number_is_the_expectation_over_the_five_words(tokens: RegionTokenizer):
    # Softmax of 0, 1, 2 (and two of -20): closed form.
    ids, logits = answered(tokens, "Quality: good.", {"fair": 0.0, "good": 2.0, "excellent": 1.0})
    level = tokens.level("quality", ids, logits)
    assert level is not None
    weights = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64).softmax(0)
    places = torch.tensor([0.5, 0.75, 1.0], dtype=torch.float64)
    mean = float(weights @ places)
    assert level.word == "good"
    assert level.value == pytest.approx(mean, abs=1e-7)
    assert level.std == pytest.approx(float(weights @ (places - mean) ** 2) ** 0.5, abs=1e-6)
    assert sum(level.probabilities) == pytest.approx(1)


@pytest.mark.parametrize("name", LEVEL_WORDS)
def test_every_level_word_is_read_in_every_writing(name: str, tokens: RegionTokenizer):
    for index, word in enumerate(LEVEL_WORDS[name]):
        for text in (f"It: {word}.", f"It: {word.capitalize()}", f"the region is {word}", word.capitalize()):
            level = tokens.level(name, *answered(tokens, text))
            assert level is not None, text
            assert (level.word, level.value) == (word, pytest.approx(index / 4, abs=1e-6)), text


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("quality", "bad guess: good.", "good"),  # what counts is behind the colon
        ("quality", "Quality: fair: good", "fair"),  # behind the first one
        ("quality", "the quality is poor", "poor"),  # no colon
        ("importance", "Importance: unimportant", "unimportant"),  # not the important in it
        ("severity", "Type: blur. Severity: light", "light"),
    ],
)
def test_the_first_word_behind_the_first_colon_counts(name: str, text: str, word: str, tokens: RegionTokenizer):
    level = tokens.level(name, *answered(tokens, text))
    assert level is not None
    assert level.word == word


@pytest.mark.parametrize("text", ["Quality: sharp.", "Quality: goodness", "no idea", "Importance: minor.", "badly"])
def test_an_answer_without_a_level_word_has_no_level(text: str, tokens: RegionTokenizer):
    assert tokens.level("quality", *answered(tokens, text)) is None


def test_what_stands_after_the_end_of_an_answer_does_not_count(tokens: RegionTokenizer):
    ids, logits = answered(tokens, "Quality: none.")
    more, again = answered(tokens, "good")
    assert tokens.level("quality", [*ids, *more], torch.cat([logits, again])) is None
    assert tokens.text([*ids, *more]) == "Quality: none."


def test_words_with_a_common_beginning_are_compared_where_they_differ():
    # Two tokens for each word of quality, the first of them common to all.
    words = LEVEL_WORDS["quality"]
    others = [*LEVEL_WORDS["importance"], *LEVEL_WORDS["severity"]]
    tokenizer = tokenizer_of(["very", *words, *others, ":"])
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.Replace(":", " : "), *(normalizers.Replace(f"{word}", f" very {word} ") for word in words)]
    )
    tokens = RegionTokenizer(tokenizer)
    ids = tokens.tokenizer(": good")["input_ids"][1:]
    assert tokens.tokenizer.convert_ids_to_tokens(ids) == [":", "very", "good"]
    logits = torch.full((3, len(tokenizer)), -20.0)
    logits[2, tokens.tokenizer.convert_tokens_to_ids(["good", "excellent"])] = torch.tensor([1.0, 1.0])
    level = tokens.level("quality", ids, logits)
    assert level is not None
    assert level.value == pytest.approx(0.875)


def test_a_tokenizer_that_cannot_tell_two_words_apart_is_refused():
    with pytest.raises(PocketiqaError, match="cannot tell the level words of quality apart"):
        RegionTokenizer(tokenizer_of([":", *LEVEL_WORDS["importance"]]), "this one")


def test_a_tokenizer_without_an_end_of_sequence_is_refused():
    with pytest.raises(PocketiqaError, match="this one has no beginning or end of sequence"):
        RegionTokenizer(tokenizer_of([":"], eos_token=None), "this one")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("Type: noise.", "noise"),
        ("The distortion: Contrast exposure", "contrast"),
        ("Type: none.", "none"),
        ("There is no distortion", "none"),
        ("Nonetheless blurred", "blur"),
        ("Type: rain", "unknown"),
        ("", "unknown"),
    ],
)
def test_the_type_is_read_from_the_answer(answer: str, kind: str, tokens: RegionTokenizer):
    assert tokens.distortion(answer) == kind


def test_a_value_becomes_the_nearest_word_and_a_mixture_of_two():
    assert [level_of(value) for value in (0, 0.12, 0.13, 0.5, 0.87, 0.88, 1, 1.3, -1)] == [0, 0, 1, 2, 3, 4, 4, 4, 0]
    for value in (0.0, 0.1, 0.25, 0.6, 0.99, 1.0):
        mixture = mixture_of(value)
        assert sum(mixture) == pytest.approx(1)
        assert sum(weight * word / 4 for word, weight in enumerate(mixture)) == pytest.approx(value)
        assert sum(weight > 0 for weight in mixture) <= 2
    assert answer_text("quality", "fair") == "Quality: fair."


def test_equal_calls_train_equal_tokenizers(tokens: RegionTokenizer):
    assert train_tokenizer().tokenizer.get_vocab() == tokens.tokenizer.get_vocab()
    assert AddedToken("<global>").content in tokens.tokenizer.get_vocab()
