"""Studies: a YAML file with one recipe and the differences between its runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from distill.recipe.load import apply_settings, parse_settings, read_yaml, todays_names, todays_tree, validated
from distill.recipe.recipe import Recipe, find_recipe
from distill.recipe.settings import Settings
from pseudo_labels.errors import PocketiqaError

_RECIPE = "recipe."
# Names of arms, axes and their values become names of folders.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._]*$", max_length=40)]
# YAML reads an arm without settings (``alone:``) as null.
Changes = Annotated[dict[str, Any], BeforeValidator(lambda changes: {} if changes is None else changes)]


class Goal(Settings):
    """The difference that the study is made to show.

    Attributes:
        arm: arm that should be better than the baseline.
        at: value of each axis but the repeats; an axis that is not named holds at all of its values.
        gain: least mean difference to the baseline; its interval must exclude 0 as well.
    """

    arm: Name
    # YAML reads a value such as 250 as a number; its name is the text.
    at: dict[Name, Annotated[Name, BeforeValidator(str)]] = Field(default_factory=dict)
    gain: float = 0.0


class Comparison(Settings):
    """Arms against one of them.

    Attributes:
        baseline: the arm that all others are compared with.
        metric: metric of agreement with the ratings of the recipe's benchmark; higher is better.
        goal: difference that is checked when all runs are done.
    """

    baseline: Name
    metric: Literal["srcc", "plcc", "krcc"] = "srcc"
    goal: Goal | None = None


class Study(Settings):
    """Runs of one recipe.

    Attributes:
        name: name of the study.
        out: folder of the study; each run has a subfolder, outputs that several runs use are in ``shared``.
        recipe: sections as in a recipe of its own, without ``name`` and ``out``; ``evaluate`` names the one benchmark
            that all runs are evaluated on.
        axes: for each axis the settings of each of its values, laid over the recipe; keys may be dotted.
        repeats: the axis over which results are averaged, usually of random seeds.
        arms: name of each arm to its settings, which are laid over recipe and axes; null removes a section.
        compare: baseline, metric and goal of the comparison; null shows the arms side by side.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    out: Path
    recipe: dict[str, Any]
    axes: Annotated[dict[Name, Annotated[dict[Name, Changes], Field(min_length=1)]], Field(min_length=1)]
    repeats: Name = "seed"
    arms: Annotated[dict[Name, Changes], Field(min_length=1)]
    compare: Comparison | None = None

    @property
    def metric(self) -> str:
        """Metric by which runs are compared."""
        return self.compare.metric if self.compare else "srcc"

    @property
    def shown_axes(self) -> list[str]:
        """All axes but the repeats, in order."""
        return [axis for axis in self.axes if axis != self.repeats]

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        if self.repeats not in self.axes:
            raise ValueError(f"repeats is {self.repeats!r}, which is no axis: known are {', '.join(self.axes)}")
        given = sorted({"name", "out"} & set(self.recipe))
        if given:
            raise ValueError(f"recipe.{given[0]} is set by the study for each run: leave it out")
        if self.compare is not None:
            self._check(self.compare)
        return self

    def _check(self, compare: Comparison) -> None:
        goal = compare.goal
        for arm in [compare.baseline, *([goal.arm] if goal else [])]:
            if arm not in self.arms:
                raise ValueError(f"compare names the arm {arm!r}: known are {', '.join(self.arms)}")
        if goal is None:
            return
        if goal.arm == compare.baseline:
            raise ValueError(f"the goal compares the arm {goal.arm!r} with itself: name another")
        for axis, value in goal.at.items():
            if axis not in self.shown_axes or value not in self.axes[axis]:
                known = "; ".join(f"{name}: {', '.join(self.axes[name])}" for name in self.shown_axes)
                raise ValueError(f"the goal is at {axis} {value}, but the axes and their values are {known}")


def load_study(name: str, settings: Sequence[str] = (), out: Path | None = None) -> Study:
    """Read a study and lay ``KEY=VALUE`` settings over it.

    Args:
        name: path, or the bare name of one that comes with pocketiqa.
        settings: words such as ``recipe.distill.steps=200``.
        out: replaces the study's.

    Raises:
        PocketiqaError: no such file, not YAML, an unknown key or a value that does not fit; names the key.
    """
    path = find_recipe(name)
    tree = read_yaml(path, "study")
    if "arms" not in tree:
        raise PocketiqaError(f"{path} holds no study: the sections 'recipe:', 'axes:' and 'arms:' are expected")
    tree = {**tree, "recipe": todays_tree(Recipe, tree.get("recipe"))}
    words = {key: value for word in settings for key, value in _todays_names(parse_settings([word])).items()}
    # Twice: dotted settings are laid over text keys, and bring keys of numbers themselves (``axes.seed={5: ...}``).
    tree = _with_text_keys(apply_settings(_with_text_keys(tree), words))
    if out is not None:
        tree["out"] = str(out)
    return validated(Study, tree, path)


def _todays_names(setting: dict[str, Any]) -> dict[str, Any]:
    """One setting with today's names; ``recipe`` holds plain values, which are checked once for each run."""
    if not next(iter(setting)).startswith(_RECIPE):
        return todays_names(Study, setting)
    inner = todays_names(Recipe, {key.removeprefix(_RECIPE): value for key, value in setting.items()})
    return {_RECIPE + key: value for key, value in inner.items()}


def _with_text_keys(value: Any) -> Any:
    """Keys that look like numbers to YAML, such as 250, are names here."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(inner) for key, inner in value.items()}
    return [_with_text_keys(inner) for inner in value] if isinstance(value, list) else value
