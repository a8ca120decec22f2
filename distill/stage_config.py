"""Settings of the stages around training; each section of a recipe is one of these models."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A section of a recipe: unknown keys are errors, values cannot be changed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PoolSection(Section):
    """Which photographs, and what counts as one scene.

    Attributes:
        sources: as for ``pocketiqa pool``; ``bundled:photographs`` are those that scikit-image, scikit-learn and
            matplotlib install.
        near_distance: dHash bits, of 64, up to which two images are one scene.
        max_bad_share: the run fails above this share of bad files.
    """

    sources: Annotated[list[str], Field(min_length=1)]
    near_distance: Annotated[int, Field(ge=0, le=32)] = 4
    max_bad_share: Share = 0.5


class DistortSection(Section):
    """Synthetic damage of the pool.

    Attributes:
        names: ``kadid``, ``camera``, ``all`` or single distortions.
        per_image: distorted versions of each clean image.
        max_side: the clean images are shrunk to this longer side in pixels first; null keeps their size.
    """

    names: Annotated[list[str], Field(min_length=1)] = ["kadid"]
    per_image: Annotated[int, Field(ge=1)] = 25
    max_side: Annotated[int, Field(ge=64)] | None = None


class LabelSection(Section):
    """Who labels the pool.

    Attributes:
        teacher: registry name, or ``package.module:function``.
        options: of the teacher.
        shards: parts of the store; null chooses by size.
        features: whether the teacher's features are stored too.
        threads: CPU threads of the teacher; part of what determines the bytes of the labels.
    """

    teacher: str
    options: dict[str, Any] = {}
    shards: Annotated[int, Field(ge=1)] | None = None
    features: bool = False
    batch_size: Annotated[int, Field(ge=1)] = 8
    threads: Annotated[int, Field(ge=1)] = 1


class BenchmarkSection(Section):
    """A labelled benchmark to judge by, beside the held-out scenes of the pool.

    Attributes:
        on: as for ``pocketiqa evaluate --on``.
        split: null is ``test`` where the benchmark has one, else ``all``.
    """

    on: str
    split: Literal["test", "validation", "train", "all"] | None = None


class ScoreSection(Section):
    """The demonstration at the end: held-out originals against visibly damaged copies.

    Attributes:
        images: how many held-out originals.
        damages: distortions of the copies.
        level: their severity, above 0 to 5.
    """

    images: Annotated[int, Field(ge=1, le=24)] = 4
    damages: Annotated[list[str], Field(min_length=1)] = ["gaussian_blur", "white_noise", "jpeg"]
    level: Annotated[float, Field(gt=0, le=5)] = 4.0


class SourceSection(Section):
    """A pool and its labels that exist already.

    Attributes:
        pool: folder of the pool.
        labels: folder of the label store.
        weight: how much its rows count in the loss, relative to the others.
    """

    pool: Path
    labels: Path
    weight: Annotated[float, Field(gt=0)] = 1.0
