"""SEAGULL with the interface of all teachers, and for regions: a picture and masks in, quality and importance out."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError
from pseudo_labels.records import Status
from teachers.base import Item, TeacherOutput
from teachers.fitting import FittableBase
from teachers.seagull.language import (
    IMPORTANCE,
    LEVEL_WORDS,
    QUALITY,
    QUESTIONS,
    SEVERITY,
    TYPE,
    UNKNOWN_TYPE,
    Level,
    RegionTokenizer,
)
from teachers.seagull.model import Picture, Seagull, nearest_mask, preprocess
from teachers.seagull.tuning import Adapters, RatingFit

_SCALE = "expectation over bad, poor, fair, good, excellent as 0, 0.25, 0.5, 0.75, 1"


@dataclass(frozen=True)
class RegionScore:
    """What SEAGULL says of one region. Numbers are in [0, 1], and NaN where there is no answer.

    Attributes:
        quality: 0 bad, 1 excellent.
        importance: to the quality of the whole picture: 0 unimportant, 1 essential.
        severity: of the distortion: 0 mild, 1 extreme; NaN where no answer has a word of severity.
        type: type of distortion, of ``language.DISTORTIONS``, ``none`` or ``unknown``.
        quality_std: standard deviation over the five level words, in units of the quality; so are the next two.
        importance_std: of the importance.
        severity_std: of the severity.
        words: the level word of each grade that was given.
        answers: the answers, word for word, by question.
        status: see ``Status``; ``failed`` where quality or importance was asked and has no level word.
        reason: words for a person; empty if ``ok``.
        note: what a person should know of a region that was scored; else empty.
    """

    quality: float = math.nan
    importance: float = math.nan
    severity: float = math.nan
    type: str = UNKNOWN_TYPE
    quality_std: float = math.nan
    importance_std: float = math.nan
    severity_std: float = math.nan
    words: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    status: Status = Status.OK
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class RegionInput:
    """A region as the model takes it.

    Attributes:
        mask: bool [side, side].
        crop: float32 [3, side, side], normalised.
        note: what a person should know.
    """

    mask: Tensor
    crop: Tensor
    note: str = ""


def region_input(image: np.ndarray, mask: np.ndarray, side_px: int) -> RegionInput:
    """Prepare a region of a picture.

    Args:
        image: uint8 RGB [H, W, 3].
        mask: [H, W], bool or numbers; above 0 is inside.
        side_px: side of the model's input.

    Raises:
        ImageError: the mask has another size or is empty, or no pixel of it is left at the size of the input.
    """
    if mask.shape != image.shape[:2]:
        raise ImageError(Status.FAILED, f"the mask has the shape {mask.shape}, the picture {image.shape[:2]}")
    inside = mask if mask.dtype == np.bool_ else mask > 0
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        raise ImageError(Status.FAILED, "the region is empty: no pixel of its mask is inside the picture")
    shrunk = nearest_mask(inside, side_px)
    if not shrunk.any():
        raise ImageError(
            Status.TOO_SMALL,
            f"the region ({np.count_nonzero(inside)} pixels of {inside.size}) vanishes at {side_px}x{side_px}",
        )
    top, left = int(rows[0]), int(columns[0])
    # Without the last row and column, as the authors crop; but at least one pixel, where theirs fails.
    height, width = int(rows[-1]) - top, int(columns[-1]) - left
    thin = "" if height and width else "one pixel thin: the crop takes that pixel"
    crop = image[top : top + max(height, 1), left : left + max(width, 1)]
    return RegionInput(torch.from_numpy(shrunk), preprocess(np.ascontiguousarray(crop), side_px), thin)


def box_masks(boxes: np.ndarray, height: int, width: int) -> Iterator[np.ndarray]:
    """Masks [H, W] of boxes, one at a time; a box outside of the picture gives an empty one.

    Args:
        boxes: [q, 4]: left, top, width and height in pixels, as COCO has them; rounded to whole pixels, at least one.
        height: of the picture.
        width: of the picture.

    Raises:
        PocketiqaError: not four numbers a box, or one that is not finite or has a negative size.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise PocketiqaError(f"boxes of shape {boxes.shape}: [q, 4] is needed, left, top, width and height in pixels")
    wrong = np.flatnonzero(~np.isfinite(boxes).all(1) | (boxes[:, 2:] < 0).any(1))
    if len(wrong):
        raise PocketiqaError(f"box {wrong[0]} is {boxes[wrong[0]].tolist()}: give finite numbers, sizes at least 0")
    for left, top, across, down in boxes:
        mask = np.zeros((height, width), dtype=np.bool_)
        x, y = round(left), round(top)
        right, bottom = max(x + 1, round(left + across)), max(y + 1, round(top + down))
        mask[max(y, 0) : max(bottom, 0), max(x, 0) : max(right, 0)] = True
        yield mask


@dataclass(frozen=True)
class Asking:
    """How a teacher asks.

    Attributes:
        questions: keys of ``language.QUESTIONS``; quality is one of them.
        together: whether the regions of a picture see each other, as in the authors' code where several are given; else
            each is scored as if it were the only one, so that its score does not depend on the others.
        regions_at_once: regions in one pass of the language model; each takes the memory of a picture's keys and values
            (0.6 GB in the published size).
        most_tokens: an answer is cut after so many tokens.

    Raises:
        PocketiqaError: an unknown question, or no question on quality.
    """

    questions: tuple[str, ...]
    together: bool = False
    regions_at_once: int = 8
    most_tokens: int = 32

    def __post_init__(self) -> None:
        unknown = [name for name in self.questions if name not in QUESTIONS]
        if unknown or QUALITY not in self.questions:
            raise PocketiqaError(
                f"questions {list(self.questions)}: choose from {', '.join(QUESTIONS)}, {QUALITY} among them"
            )
        for name, value in (("regions_at_once", self.regions_at_once), ("most_tokens", self.most_tokens)):
            if value < 1:
                raise PocketiqaError(f"{name} {value}: it must be at least 1")


class SeagullTeacher(FittableBase[Seagull]):
    """SEAGULL as a teacher. The score of an image is the quality of the region that is the whole of it.

    Args:
        model: the model, extractor and projector in float32.
        tokens: its tokenizer.
        asking: what is asked, and how.
        facts: what else belongs to the stamp: variant and precision, as JSON values.
        fitted_with: see ``FittableBase``; so are ``base``, ``licence`` and ``head``.
        spread: whether the language model is spread over devices, which ``to`` then leaves alone.
    """

    version = 1
    needs_reference = False
    feature_names = ()

    def __init__(
        self,
        model: Seagull,
        tokens: RegionTokenizer,
        asking: Asking,
        *,
        facts: dict[str, Any],
        fitted_with: dict[str, Any],
        base: str,
        licence: str,
        head: Path | None = None,
        spread: bool = False,
    ):
        self.tokens, self.asking = tokens, asking
        self._facts, self._spread = facts, spread
        self._prompts = {name: tokens.prompt(QUESTIONS[name]) for name in asking.questions}
        super().__init__("seagull", model, fitted_with=fitted_with, base=base, licence=licence, head=head, scale=_SCALE)

    def stamp_options(self) -> dict[str, Any]:
        """Variant, precision, how is asked, and the versions of what computes."""
        asked = {"questions": list(self.asking.questions), "together": self.asking.together}
        versions = {name: metadata.version(name) for name in ("timm", "transformers")}
        return {**self._facts, **asked, "most_tokens": self.asking.most_tokens, **versions}

    def to(self, device: torch.device | str) -> Self:
        """Compute on this device from now on; a language model that is spread over devices stays where it is."""
        if not self._spread:
            return super().to(device)
        for part in (self.model.tower, self.model.extractor, self.model.projector):
            part.to(device)
        return self

    def fitting_module(self) -> nn.Module:
        """What ``pocketiqa fit-teacher`` trains on ratings of whole images; of regions, see ``tuning.AnswerLoss``."""
        return RatingFit(self.model, self.tokens)

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Item:
        """The picture and the crop of its only region, the whole of it; float32 [3, side, side] each."""
        whole = region_input(image, np.ones(image.shape[:2], dtype=np.bool_), self.side_px)
        return preprocess(image, self.side_px), whole.crop

    def __call__(self, batch: list[Any]) -> TeacherOutput:
        """Score whole images; NaN where the answer has no level word."""
        scores = []
        for pixels, crop in batch:
            inside = torch.ones((self.side_px, self.side_px), dtype=torch.bool)
            scores.append(self._scores(self.look(pixels), [RegionInput(inside, crop)], (QUALITY,))[0])
        column = ((score.quality, score.quality_std) for score in scores)
        quality, std = (torch.tensor(values) for values in zip(*column, strict=True))
        return TeacherOutput(quality, std.nan_to_num(0.0))

    @property
    def adapters(self) -> Adapters:
        """Settings of the language model's adapters."""
        return Adapters(**{name: value for name, value in self.fitted_with.items() if name.startswith("lora_")})

    @property
    def side_px(self) -> int:
        """Side of the model's square input."""
        return self.model.sizes.extractor.side_px

    def look(self, pixels: Tensor) -> Picture:
        """Take in one picture [3, side, side], as ``model.preprocess`` gives it, for any number of questions."""
        with torch.inference_mode():
            return self.model.look([level[0] for level in self.model.feature_maps(pixels[None])])

    def score_regions(
        self, image: np.ndarray, masks: Iterable[np.ndarray], picture: Picture | None = None
    ) -> list[RegionScore]:
        """Score regions of one picture.

        Args:
            image: uint8 RGB [H, W, 3].
            masks: bool [q, H, W], or masks [H, W] one by one, such as ``box_masks`` gives; they are read as they are
                needed, unless regions are asked together.
            picture: of ``look``, where the picture was taken in before.

        Returns:
            One for each mask, in their order. A region that cannot be scored has a status and a reason.

        Raises:
            PocketiqaError: the image is no uint8 [H, W, 3].
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise PocketiqaError(f"an image of {image.dtype} {image.shape}: uint8 [height, width, 3] is needed")
        at_once = None if self.asking.together else self.asking.regions_at_once
        remaining = iter(masks)
        scores: list[RegionScore] = []
        while group := list(islice(remaining, at_once)):
            ready = [_ready(image, mask, self.side_px) for mask in group]
            usable = [entry for entry in ready if isinstance(entry, RegionInput)]
            if usable and picture is None:
                picture = self.look(preprocess(image, self.side_px))
            given = iter(self._scores(picture, usable, self.asking.questions) if usable and picture else ())
            scores += [entry if isinstance(entry, RegionScore) else next(given) for entry in ready]
        return scores

    def _scores(self, picture: Picture, regions: Sequence[RegionInput], questions: Sequence[str]) -> list[RegionScore]:
        """Scores of regions of a picture, as many in a pass of the language model as memory is meant for."""
        with torch.inference_mode():
            masks = torch.stack([region.mask for region in regions])
            crops = torch.stack([region.crop for region in regions])
            embedded = self.model.embed(picture, masks, crops, together=self.asking.together)
        scores = []
        for part in embedded.split(self.asking.regions_at_once):
            asked = {name: self._ask(picture, part, name) for name in questions}
            scores += [self._read({name: answers[row] for name, answers in asked.items()}) for row in range(len(part))]
        return [replace(score, note=region.note) for score, region in zip(scores, regions, strict=True)]

    def _ask(self, picture: Picture, regions: Tensor, name: str) -> list[tuple[list[int], Tensor]]:
        """Answers on one question: tokens and their logits, for each region."""
        ids, logits = self.model.answer(
            picture, regions, self._prompts[name], most_tokens=self.asking.most_tokens, end=self.tokens.eos
        )
        return list(zip(ids.tolist(), logits, strict=True))

    def _read(self, answers: dict[str, tuple[list[int], Tensor]]) -> RegionScore:
        """Numbers and words of a region's answers."""
        texts = {name: self.tokens.text(ids) for name, (ids, _) in answers.items()}
        levels: dict[str, Level | None] = {
            name: self.tokens.level(name, *answers[name]) for name in (QUALITY, IMPORTANCE) if name in answers
        }
        missing = [name for name, level in levels.items() if level is None]
        if SEVERITY in answers or TYPE in answers:
            levels[SEVERITY] = self.tokens.level(SEVERITY, *answers[SEVERITY if SEVERITY in answers else TYPE])
        given = {name: level for name, level in levels.items() if level is not None}
        reasons = [
            f"the answer on {name} has no level word ({', '.join(LEVEL_WORDS[name])}): {texts[name][:80]!r}"
            for name in missing
        ]
        numbers: dict[str, Any] = {name: level.value for name, level in given.items()}
        numbers |= {f"{name}_std": level.std for name, level in given.items()}
        return RegionScore(
            **numbers,
            type=self.tokens.distortion(texts[TYPE]) if TYPE in texts else UNKNOWN_TYPE,
            words={name: level.word for name, level in given.items()},
            answers=texts,
            status=Status.FAILED if missing else Status.OK,
            reason="; ".join(reasons),
        )


def _ready(image: np.ndarray, mask: np.ndarray, side_px: int) -> RegionInput | RegionScore:
    try:
        return region_input(image, np.asarray(mask), side_px)
    except ImageError as error:
        return RegionScore(status=error.status, reason=error.reason)
