"""Comparisons: a YAML file that names a benchmark, and the models that are evaluated on it."""

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from distill.recipe.load import apply_settings, parse_settings, read_yaml, todays_names, todays_tree, validated
from distill.recipe.recipe import find_recipe
from distill.recipe.settings import Settings
from distill.recipe.stages import SplitName
from pseudo_labels.errors import PocketiqaError


class Target(Settings):
    """The benchmark that all models are evaluated on.

    Attributes:
        ratings: benchmark, written as for ``pocketiqa evaluate --on``.
        split: part of the benchmark that is evaluated on.
    """

    RENAMED = {"opinions": "ratings"}

    ratings: str
    split: SplitName = "test"


class Published(Settings):
    """A figure that others measured.

    Attributes:
        srcc: SRCC on all images of the split, near duplicates of training images included.
        images: images that it was measured on, in words.
        source: publication of the figure.
    """

    srcc: Annotated[float, Field(ge=-1, le=1)]
    images: str
    source: str


class Row(Settings):
    """A line of the table: measured here, or published.

    Attributes:
        name: name of the row in table and plots.
        models: names or paths as for ``pocketiqa evaluate``; several are repeats of one training with other seeds.
        options: options of a teacher.
        time: measure milliseconds from file to score, reading of the file included, on one core.
        parameters: number of parameters of the model, where the file does not say.
        published: figure that others published, in place of all these.
        make: command that makes the models, for the message when one is missing.
    """

    name: Annotated[str, Field(min_length=1, max_length=60)]
    models: tuple[str, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)
    time: bool = False
    parameters: int | None = None
    published: Published | None = None
    make: str = ""

    @property
    def slug(self) -> str:
        """The name as part of the names of its folders."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-") or "row"

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        # Neither is a row without a figure; with both, nobody could say which of the two the table shows.
        if bool(self.models) == (self.published is not None):
            raise ValueError(f"row {self.name!r}: give either 'models' or 'published'")
        if self.published is not None and (self.options or self.time or self.make):
            raise ValueError(f"row {self.name!r} is published: leave options, time and make out")
        return self


class Gain(Settings):
    """Two rows that are compared image by image, seed by seed.

    Attributes:
        row: name of the row that should be better.
        over: name of the row that it is compared with.
    """

    row: str
    over: str


class Comparison(Settings):
    """A comparison.

    Attributes:
        name: name of the comparison.
        out: folder to write.
        benchmark: benchmark and its part, see ``Target``.
        rows: rows of the table, in its order.
        gains: differences between rows, see ``Gain``.
        plotted: names of rows whose predictions are plotted against the ratings.
        timed_images: number of the benchmark's images that are timed.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    out: Path
    benchmark: Target
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
    gains: tuple[Gain, ...] = ()
    plotted: tuple[str, ...] = ()
    timed_images: Annotated[int, Field(ge=3)] = 60

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        measured = [row.name for row in self.rows if row.models]
        every = [row.name for row in self.rows]
        if not measured:
            raise ValueError("no row has 'models': at least one must be measured here")
        if len(set(every)) < len(every):
            raise ValueError(f"rows have the names {', '.join(every)}: give each its own")
        # Each would find the predictions of the other in its folder, and predict again in every call.
        owner: dict[str, str] = {}
        for row in self.rows:
            if row.models and (other := owner.setdefault(row.slug, row.name)) != row.name:
                raise ValueError(
                    f"rows {other!r} and {row.name!r} would have one folder, {row.slug!r}: call one of them otherwise"
                )
        for name in [*self.plotted, *(part for gain in self.gains for part in (gain.row, gain.over))]:
            if name not in measured:
                raise ValueError(f"{name!r} is no row that is measured here: choose {', '.join(measured) or 'none'}")
        return self


def load_comparison(name: str, settings: list[str], out: Path | None = None) -> Comparison:
    """Read a comparison and lay ``KEY=VALUE`` settings over it.

    Args:
        name: path, or the bare name of one that comes with pocketiqa.
        settings: words such as ``timed_images=20``.
        out: replaces the file's.

    Raises:
        PocketiqaError: no such file, not YAML, an unknown key or a value that does not fit; names the key.
    """
    path = find_recipe(name)
    tree = todays_tree(Comparison, read_yaml(path, "comparison"))
    tree = apply_settings(tree, todays_names(Comparison, parse_settings(settings)))
    if "rows" not in tree:
        raise PocketiqaError(f"{path} holds no comparison: the sections 'benchmark:' and 'rows:' are expected")
    if out is not None:
        tree["out"] = str(out)
    return validated(Comparison, tree, path)
