"""The part of a recipe that fits a teacher to opinion scores."""

from typing import Any, Self

from pydantic import Field, model_validator

from distill.stage_config import SourceSection
from distill.training.loop_config import LoopSettings, ScoreLossSettings, Settings
from students.preprocess import LARGEST_SIDE


class ViewSettings(Settings):
    """What the teacher sees of an image in training; its own resize comes after. Validation shows the whole image.

    Attributes:
        max_side: larger images are shrunk to this longer side in pixels once, before all else. Where that is below the
            size of the images, label images that were shrunk alike.
        crop_share: share of each side that a random crop has; 1 shows the whole image.
        crop_size: side of a random square crop in pixels instead.
        horizontal_flip: flip half of the images.
    """

    max_side: int = Field(default=1024, ge=64, le=LARGEST_SIDE)
    crop_share: float = Field(default=1.0, gt=0, le=1)
    crop_size: int | None = Field(default=None, ge=64)
    horizontal_flip: bool = True

    @model_validator(mode="after")
    def _one_kind_of_crop(self) -> Self:
        if self.crop_size is not None and self.crop_share < 1:
            raise ValueError(f"crop_size {self.crop_size} and crop_share {self.crop_share}: give only one of them")
        return self

    def window(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the crop of an image."""
        if self.crop_size is not None:
            return min(height, self.crop_size), min(width, self.crop_size)
        return max(1, round(height * self.crop_share)), max(1, round(width * self.crop_share))


class FitConfig(LoopSettings):
    """One fitting of a teacher.

    Attributes:
        teacher: registry name, or ``package.module:function``.
        options: of the teacher; ``head: new`` starts at random, ``head: FILE`` goes on from an earlier fitting. When a
            run is resumed, files may have moved, and what changes time and memory alone (``TeacherEntry.speed``) may
            differ.
        ema_decay: largest decay of averaged weights, per step (``ema.Average``); these are validated and kept. 0, as in
            the papers, averages nothing and costs no memory.
        losses: see ``ScoreLossSettings``.
        images: see ``ViewSettings``.
        scale: what 0 and 1 mean, for the file; None names the sources.
        licence: of weights and opinions, likewise.
    """

    teacher: str
    options: dict[str, Any] = Field(default_factory=dict)
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    losses: ScoreLossSettings = ScoreLossSettings()
    images: ViewSettings = ViewSettings()
    scale: str | None = None
    licence: str | None = None

    def determining(self) -> dict[str, object]:
        """The settings that determine the result, as JSON values.

        The teacher's options and the sources name files of this machine; the stamp of the teacher that the options give
        and what the sources hold must be added.
        """
        return self.model_dump(mode="json", exclude={"device", "threads", "tracker", "options", "sources"})


class FitSection(FitConfig):
    """The section ``fit`` of a recipe.

    Attributes:
        sources: opinions to fit to: ``opinions: NAME:FOLDER``, or a pool with its labels.
    """

    sources: tuple[SourceSection, ...] = Field(min_length=1)
