"""What SEAGULL is asked, how the question becomes tokens, and how an answer becomes a number.

The sentences of ``question_text`` are the published model's interface, to the letter (a comma between "contrast" and
"exposure" is missing there too): its weights were trained with them. The authors' code gives the answer as text. The
number is ours: the expectation over the five level words, at the token of the answer by which they differ.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pseudo_labels.errors import PocketiqaError
from teachers.launch import quiet_transformers

IMAGE_MARK = "<image>"
GLOBAL_MARK, LOCAL_MARK = "<global>", "<local>"

QUALITY, IMPORTANCE, SEVERITY, TYPE = "quality", "importance", "severity", "type"
LEVEL_WORDS: dict[str, tuple[str, ...]] = {
    QUALITY: ("bad", "poor", "fair", "good", "excellent"),
    IMPORTANCE: ("unimportant", "minor", "normal", "important", "essential"),
    SEVERITY: ("mild", "light", "moderate", "considerable", "extreme"),
}
"""What is graded -> its five words, from the least to the most."""
DISTORTIONS = ("blur", "colorfulness", "compression", "contrast", "exposure", "noise")
"""Types of distortion that the published model knows."""

QUESTIONS: dict[str, str] = {
    TYPE: "Provide the distortion type of this region.",
    QUALITY: "Analyze the quality of this region.",
    IMPORTANCE: "Consider the impact of this region on the overall image quality. "
    "Analyze its importance to the overall image quality.",
    # Ours: the published model gives the severity, if at all, in its answer on the type.
    SEVERITY: "Analyze the severity of the distortion of this region.",
}
PUBLISHED_QUESTIONS = (QUALITY, IMPORTANCE, TYPE)
"""The questions that the published weights were trained with."""

_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
_INTRODUCTION = (
    f"{IMAGE_MARK}\nThis provides an overview of the image.\n"
    " Please answer the following questions about the provided region. "
    "Note: Distortions include: blur, colorfulness, compression, contrast exposure and noise.\n"
    f" Here is the region {GLOBAL_MARK}{LOCAL_MARK}. "
)
_ANSWER_BEGINS = " ASSISTANT:"
# Words that say in place of a type that there is none.
_NO_DISTORTION = re.compile(r"\b(none|no distortions?|undistorted|pristine)\b")
UNDISTORTED = "none"
UNKNOWN_TYPE = "unknown"


def question_text(question: str) -> str:
    """The whole text before the answer, with marks where the image and the region stand."""
    return f"{_SYSTEM} USER: {_INTRODUCTION}{question}{_ANSWER_BEGINS}"


def answer_text(name: str, value: str) -> str:
    """An answer as ours are trained: ``Quality: good.``; of the published ones too, the part after a colon counts."""
    return f"{name.capitalize()}: {value}."


def level_of(value: float) -> int:
    """Index of the level word nearest to a value in [0, 1]; the words stand for 0, 0.25, 0.5, 0.75 and 1."""
    return int(4 * min(max(value, 0.0), 1.0) + 0.5)


def mixture_of(value: float) -> list[float]:
    """Weights of the five level words whose expectation is this value in [0, 1]: of the two nearest ones."""
    place = 4 * min(max(value, 0.0), 1.0)
    return [max(0.0, 1 - abs(place - word)) for word in range(5)]


@dataclass(frozen=True)
class Prompt:
    """A question as tokens, cut where embeddings that are no words stand.

    Attributes:
        before_image: token ids, beginning of sequence first; the image's embeddings follow.
        before_region: token ids between the image and the region's two embeddings.
        after_region: token ids after them, up to the answer.
    """

    before_image: tuple[int, ...]
    before_region: tuple[int, ...]
    after_region: tuple[int, ...]


@dataclass(frozen=True)
class Level:
    """A graded answer.

    Attributes:
        word: the level word that stands in the answer.
        value: expectation over the five words, in [0, 1].
        std: standard deviation over the five words, in units of ``value``.
        probabilities: of the five words, from the least to the most; they add up to 1.
    """

    word: str
    value: float
    std: float
    probabilities: tuple[float, ...]


class RegionTokenizer:
    """A LLaMA-class tokenizer, with what SEAGULL asks and answers.

    Args:
        tokenizer: of transformers; the marks of a region are added if it lacks them.
        where: what errors call its source.

    Raises:
        PocketiqaError: it has no beginning or end of sequence, or cannot tell two level words apart.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, where: str = "the tokenizer"):
        self.tokenizer = tokenizer
        ids = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        if not all(isinstance(id, int) for id in ids):
            raise PocketiqaError(f"{where} has no beginning or end of sequence: give the tokenizer of a LLaMA model")
        self.bos, self.eos = (int(id) for id in ids)  # type: ignore[arg-type] - checked above
        tokenizer.add_tokens([GLOBAL_MARK, LOCAL_MARK], special_tokens=True)
        self.marks = tuple(int(tokenizer.convert_tokens_to_ids(mark)) for mark in (GLOBAL_MARK, LOCAL_MARK))  # type: ignore[arg-type]
        self._answered: dict[tuple[str, str], tuple[Prompt, int]] = {}
        self._forms = {name: self._forms_of(name, words, where) for name, words in LEVEL_WORDS.items()}

    def prompt(self, question: str, answer: str | None = None) -> Prompt:
        """A question as tokens; with an answer, that and the end of sequence are the last of ``after_region``.

        The text is cut at the image mark and its pieces are tokenized by themselves, with one beginning of sequence.
        """
        text = question_text(question) + ("" if answer is None else f" {answer}")
        first, second = (self._ids(piece) for piece in text.split(IMAGE_MARK))
        if first[:1] == [self.bos]:
            second = second[1:]
        else:
            first = [self.bos, *first]
        at = second.index(self.marks[0])
        if second[at + 1] != self.marks[1]:
            raise PocketiqaError(f"the tokenizer parts {GLOBAL_MARK} from {LOCAL_MARK}: give SEAGULL's own")
        after = second[at + 2 :] + ([] if answer is None else [self.eos])
        return Prompt(tuple(first), tuple(second[:at]), tuple(after))

    def with_answer(self, question: str, answer: str) -> tuple[Prompt, int]:
        """A question with its answer, and how many tokens at its end are the answer's, the end of sequence too.

        Raises:
            PocketiqaError: the answer changes the tokens of the question.
        """
        # There are few different answers, and training asks for them again and again.
        if (question, answer) not in self._answered:
            asked, whole = self.prompt(question), self.prompt(question, answer)
            length = len(asked.after_region)
            if whole.after_region[:length] != asked.after_region:
                raise PocketiqaError(
                    f"the answer {answer!r} changes the tokens of the question: begin it with a letter"
                )
            self._answered[question, answer] = whole, len(whole.after_region) - length
        return self._answered[question, answer]

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as text, up to the end of sequence."""
        return str(self.tokenizer.decode(self._up_to_end(ids), skip_special_tokens=True)).strip()

    def _up_to_end(self, ids: Sequence[int]) -> list[int]:
        ids = [int(id) for id in ids]
        return ids[: ids.index(self.eos)] if self.eos in ids else ids

    def level(self, name: str, ids: Sequence[int], logits: Tensor) -> Level | None:
        """Grade an answer.

        Args:
            name: key of ``LEVEL_WORDS``.
            ids: tokens of the answer.
            logits: [len(ids), vocabulary], by which each of them was chosen.

        Returns:
            The first level word after the first colon (anywhere, without a colon); None if there is none.
        """
        ids = self._up_to_end(ids)
        texts = [self.text(ids[:number]) for number in range(len(ids) + 1)]
        begin = next((number for number, text in enumerate(texts) if ":" in text), 0)
        for start in range(begin, len(ids)):
            for form in self._forms[name]:
                index = form.word_at(ids, start, texts)
                if index is not None:
                    chosen = logits[start + form.shared, list(form.deciding)]
                    return _level(LEVEL_WORDS[name][index], chosen)
        return None

    def graded_token(self, name: str, answer: Sequence[int]) -> tuple[int, list[int]]:
        """Where an answer that is a level word decides, and between which tokens.

        Args:
            name: key of ``LEVEL_WORDS``.
            answer: tokens of an answer as ``answer_text`` makes it.

        Returns:
            Index of the deciding token, and the tokens that the five words have there.

        Raises:
            PocketiqaError: the answer has no level word.
        """
        form, ids = self._forms[name][0], tuple(answer)
        for start in range(len(ids)):
            if any(ids[start : start + len(word)] == word for word in form.words):
                return start + form.shared, list(form.deciding)
        raise PocketiqaError(f"the answer {self.text(ids)!r} has no level word of {name}: make it by answer_text")

    def distortion(self, answer: str) -> str:
        """The type that an answer names: of ``DISTORTIONS``, ``none``, or ``unknown``."""
        said = (answer.partition(":")[2] or answer).lower()
        if _NO_DISTORTION.search(said):
            return UNDISTORTED
        named = [(said.find(word), word) for word in DISTORTIONS if word in said]
        return min(named)[1] if named else UNKNOWN_TYPE

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])

    def _forms_of(self, name: str, words: Sequence[str], where: str) -> tuple["_Form", ...]:
        """How the five words can stand in an answer: after a space or not, with a capital or not."""
        forms = []
        for space in (" ", ""):
            for written in (words, [word.capitalize() for word in words]):
                tokens = [self._continued(":", space + word) for word in written]
                if all(tokens):
                    form = _form([token or () for token in tokens])
                    forms += [] if form is None or form in forms else [form]
        if not forms:
            raise PocketiqaError(
                f"{where} cannot tell the level words of {name} apart ({', '.join(words)}): two of them begin with one "
                "token; give the tokenizer that the weights were trained with"
            )
        return tuple(forms)

    def _continued(self, before: str, text: str) -> tuple[int, ...] | None:
        """Tokens of a text where it follows another; None if it changes the other's tokens."""
        context, whole = self._ids(before), self._ids(before + text)
        return tuple(whole[len(context) :]) if whole[: len(context)] == context else None


@dataclass(frozen=True)
class _Form:
    """Five words in one way of writing, as tokens: ``shared`` common ones first, then the ``deciding`` ones."""

    words: tuple[tuple[int, ...], ...]
    shared: int
    deciding: tuple[int, ...]

    def word_at(self, ids: Sequence[int], start: int, texts: Sequence[str]) -> int | None:
        """Index of the word that stands at ``start``; ``texts[n]`` is the text of the first n tokens."""
        for index, word in enumerate(self.words):
            end = start + len(word)
            if tuple(ids[start:end]) == word and not _goes_on(texts, end) and not _begins_inside(texts, start, end):
                return index
        return None


def _form(words: Sequence[tuple[int, ...]]) -> _Form | None:
    """None if two words have the same token where the five first differ, or one ends before."""
    shared = 0
    while all(len(word) > shared + 1 for word in words) and len({word[shared] for word in words}) == 1:
        shared += 1
    deciding = tuple(word[shared] for word in words)
    return _Form(tuple(words), shared, deciding) if len(set(deciding)) == len(words) else None


def _goes_on(texts: Sequence[str], end: int) -> bool:
    """Whether a letter follows directly, so that the tokens are only the beginning of a longer word."""
    return end + 1 < len(texts) and texts[end + 1][len(texts[end]) : len(texts[end]) + 1].isalpha()


def _begins_inside(texts: Sequence[str], start: int, end: int) -> bool:
    """Whether the word directly continues a letter, as "important" does in "unimportant"."""
    before, added = texts[start], texts[end][len(texts[start]) :]
    return before[-1:].isalpha() and added[:1].isalpha()


def _level(word: str, logits: Tensor) -> Level:
    probabilities = logits.detach().double().cpu().softmax(0)
    steps = torch.linspace(0, 1, len(probabilities), dtype=torch.float64)
    mean = float(probabilities @ steps)
    variance = float(probabilities @ (steps - mean).square())
    return Level(word, mean, max(variance, 0.0) ** 0.5, tuple(probabilities.tolist()))


def read_tokenizer(folder: Path) -> RegionTokenizer:
    """The tokenizer of a model's folder.

    Raises:
        PocketiqaError: its files are missing or of another kind; names them.
    """
    try:
        # It warns of what is in config.json, which the tokenizer does not need.
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="right")
    except Exception as error:  # transformers raises errors of several libraries
        reason = " ".join(str(error).split())[:160]
        raise PocketiqaError(
            f"{folder} holds no usable tokenizer ({reason}): fetch tokenizer.model (or tokenizer.json), "
            "tokenizer_config.json and special_tokens_map.json of the checkpoint again"
        ) from error
    return RegionTokenizer(tokenizer, str(folder))


def train_tokenizer() -> RegionTokenizer:
    """A small tokenizer for tests, trained now on what is asked and answered; equal calls give equal tokenizers."""
    unknown, begin, end = "<unk>", "<s>", "</s>"
    tokenizer = Tokenizer(models.BPE(unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])  # type: ignore[assignment]
    tokenizer.decoder = decoders.Metaspace()  # type: ignore[assignment]
    # Whole words become tokens: the corpus is small, and each sentence counts twice.
    trainer = trainers.BpeTrainer(vocab_size=4000, min_frequency=2, special_tokens=[unknown, begin, end])  # type: ignore[call-arg]
    tokenizer.train_from_iterator(2 * _sentences(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    return RegionTokenizer(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, unk_token=unknown, bos_token=begin, eos_token=end, pad_token=unknown
        )
    )


def _sentences() -> list[str]:
    questions = [question_text(question) for question in QUESTIONS.values()]
    graded: Mapping[str, Any] = {**LEVEL_WORDS, TYPE: (*DISTORTIONS, UNDISTORTED)}
    answers = [answer_text(name, word) for name, words in graded.items() for word in words]
    capitals = [word.capitalize() for words in LEVEL_WORDS.values() for word in words]
    letters = [" ".join("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ?!'")]
    return [*questions, *answers, *capitals, "Yes.", "No.", "Is the distortion of this region?", *letters]
