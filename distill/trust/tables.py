"""The figures as tables of texts, for page, Markdown and terminal alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from distill.html.tables import MISSING, decimals, signed
from distill.terminal.console import shown
from distill.trust.attack import LABELS as WAYS
from distill.trust.attack import STRONGEST
from distill.trust.definitions import ATTACK, CATALOGUE, DEFINITIONS, VIEWS, WATERLOO
from distill.trust.measure import ATTACKED
from distill.trust.summary import mean_auroc

_PICTURE_WORDS = dict(zip(ATTACKED, ("clean photograph", "compressed copy"), strict=True))
_METHOD_WORDS = {"random": "random signs", "fgsm": "FGSM", "pgd": "PGD"}


@dataclass(frozen=True)
class Sheet:
    """One table.

    Attributes:
        title: heading.
        about: names of ``DEFINITIONS`` that it shows.
        header: one text a column.
        rows: texts; the first of a row names it.
        caption: sentence below the heading.
    """

    title: str
    about: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


def sheets(result: Mapping[str, Any]) -> list[Sheet]:
    """All tables of a result, as ``run.trust`` makes it; those whose test was not run are left out."""
    models, tests = result["models"], result["tests"]
    made = [_overview(result)]
    if WATERLOO in tests:
        made.append(_orders(models))
    if WATERLOO in tests or CATALOGUE in tests:
        made.append(_auroc(models))
    if ATTACK in tests:
        made.append(_attacks(models))
        if any(model["cross"] for model in models):
            made.append(_cross(models))
    if result["ratings"] is not None:
        made.append(_ratings(models, result["ratings"]))
        if result["ratings"]["intervals"]:
            made.append(_intervals(result["ratings"]["intervals"]))
    return made


def number(figure: Mapping[str, Any] | None, *, difference: bool = False) -> str:
    """A figure with its interval; a dash where there is none."""
    if figure is None or figure.get("value") is None:
        return MISSING
    write = signed if difference else decimals
    ends = "" if figure["low"] is None else f" ({write(figure['low'])} to {write(figure['high'])})"
    return f"{write(figure['value'])}{ends}"


def _judged(figure: Mapping[str, Any]) -> str:
    words = {"no": ", missed", "undecided": ", undecided"}
    return number(figure) + words.get(figure["reached"], "")


def _names(models: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(model["name"] for model in models)


def _overview(result: Mapping[str, Any]) -> Sheet:
    models, tests, ratings = result["models"], result["tests"], result["ratings"]
    rows: list[tuple[str, ...]] = []
    about: list[str] = []

    def add(name: str, title: str, cells: Sequence[str]) -> None:
        least = DEFINITIONS[name].least
        rows.append((title, "" if least is None else f"at least {least:g}", *cells))
        about.extend([name] if name not in about else [])

    if WATERLOO in tests:
        for name in ("d", "l", "p"):
            add(name, DEFINITIONS[name].title, [_judged(model[name]) for model in models])
    if CATALOGUE in tests:
        means = [mean_auroc(model, "effects") for model in models]
        add("auroc", "AUROC, mean of 8 kinds", [MISSING if mean is None else decimals(mean) for mean in means])
    if VIEWS in tests:
        for name in ("crops", "sizes"):
            add(name, f"{DEFINITIONS[name].title}, difference", [number(model[name]) for model in models])
    if ATTACK in tests:
        for picture, words in _PICTURE_WORDS.items():
            cells = [_gain(model["attack"], picture, STRONGEST) for model in models]
            add("attack", f"Gain, {_way(STRONGEST)}, {words}", cells)
    if WATERLOO in tests:
        add("spread", DEFINITIONS["spread"].title, [decimals(model["spread"]) for model in models])
    if ratings is not None:
        add("srcc", f"SRCC, {ratings['name']}", [_srcc(ratings["evaluation"], name) for name in _names(models)])
    n = len(result["photographs"])
    caption = f"{n} photograph{'' if n == 1 else 's'}; 95 % intervals over photographs (from 5 on)."
    if WATERLOO in tests:
        pairs = models[0]["p"]["pairs"]
        caption += f" P-test: {pairs:,} pairs. Missed: below what is asked by more than chance explains."
    return Sheet("Overview", tuple(about), ("test", "asked", *_names(models)), tuple(rows), caption)


def _orders(models: Sequence[Mapping[str, Any]]) -> Sheet:
    kinds = models[0]["l"]["kinds"]
    rows = [(_words(kind), *(number(model["l"]["kinds"][kind]) for model in models)) for kind in kinds]
    return Sheet("Order of strengths by distortion", ("l",), ("distortion", *_names(models)), tuple(rows))


def _auroc(models: Sequence[Mapping[str, Any]]) -> Sheet:
    rows = []
    for part, prefix in (("effects", ""), ("waterloo", "Waterloo: ")):
        for name in models[0]["auroc"].get(part, {}):
            # Five numbers in one cell: five columns a model would be too wide for a page.
            cells = (" ".join(decimals(cell["value"], 2) for cell in model["auroc"][part][name]) for model in models)
            rows.append((prefix + _words(name), *cells))
    caption = "Strengths 1 to 5 from left to right. Intervals, and each distortion alone, are in the JSON."
    return Sheet(DEFINITIONS["auroc"].title, ("auroc",), ("kind", *_names(models)), tuple(rows), caption)


def _attacks(models: Sequence[Mapping[str, Any]]) -> Sheet:
    rows = [
        (f"{words}, {_way(way)}", *(_gain(model["attack"], picture, way) for model in models))
        for picture, words in _PICTURE_WORDS.items()
        for way in WAYS
    ]
    without = [f"{model['name']}: {model['attack']['reason']}" for model in models if "reason" in model["attack"]]
    return Sheet(
        DEFINITIONS["attack"].title,
        ("attack",),
        ("picture and attack", *_names(models)),
        tuple(rows),
        "; ".join(without),
    )


def _cross(models: Sequence[Mapping[str, Any]]) -> Sheet:
    attackable = [name for name in _names(models) if any(name in model["cross"] for model in models)]
    rows = []
    for attacked in attackable:
        for picture, words in _PICTURE_WORDS.items():
            own = {model["name"]: model["cross"].get(attacked, {}).get(picture) for model in models}
            own[attacked] = next(model for model in models if model["name"] == attacked)["attack"][picture][STRONGEST]
            cells = (number(own[name], difference=True) for name in _names(models))
            rows.append((f"made against {attacked}, {words}", *cells))
    caption = f"{_way(STRONGEST)}; the gain of each model, its own attack beside it."
    header = ("pictures", *_names(models))
    return Sheet(DEFINITIONS["cross"].title, ("cross",), header, tuple(rows), caption)


def _gain(attack: Mapping[str, Any], picture: str, way: str) -> str:
    return number(attack.get(picture, {}).get(way), difference=True)


def _way(way: str) -> str:
    method, _, epsilon = way.partition(" ")
    return f"{_METHOD_WORDS[method]} {epsilon}/255"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _srcc(evaluation: Mapping[str, Any], name: str, selection: str | None = None, subset: str | None = None) -> str:
    model = next(one for one in evaluation["models"] if one["name"] == name)
    part = model["selections"][selection or evaluation["headline"]]
    if subset is not None:
        part = part.get("subsets", {}).get(subset)
    return MISSING if part is None else number(part["metrics"]["srcc"])


def _ratings(models: Sequence[Mapping[str, Any]], ratings: Mapping[str, Any]) -> Sheet:
    names, evaluation, contents = _names(models), ratings["evaluation"], ratings["contents"]
    rows = [
        (f"{selection}, {facts['n']}", *(_srcc(evaluation, name, selection) for name in names))
        for selection, facts in evaluation["selections"].items()
    ]
    for given in (evaluation, contents):
        if given is None:
            continue
        part = given["models"][0]["selections"][given["headline"]]
        for subset, facts in part.get("subsets", {}).items():
            rows.append((f"{subset}, {facts['n']}", *(_srcc(given, name, None, subset) for name in names)))
    caption = (
        f"{ratings['name']}, subsets and contents of the {evaluation['headline']} photographs; with their numbers."
    )
    return Sheet(DEFINITIONS["srcc"].title, ("srcc",), ("photographs", *names), tuple(rows), caption)


def _intervals(records: Sequence[Mapping[str, Any]]) -> Sheet:
    rows = []
    for one in records:
        for part in one["parts"]:
            facts = f"{part['level']} %", str(part["n"]), number(part["coverage"]), decimals(part["width"])
            rows.append((f"{one['model']}, {part['part']}", *facts))
    header = ("model and photographs", "interval", "n", "ratings inside", "mean width")
    return Sheet(DEFINITIONS["intervals"].title, ("intervals",), header, tuple(rows))


def markdown(result: Mapping[str, Any]) -> str:
    """All tables as Markdown, each below its heading."""
    parts = []
    for sheet in sheets(result):
        lines = [sheet.header, ("---",) * len(sheet.header), *sheet.rows]
        table = "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)
        parts.append(f"**{sheet.title}.**" + (f" {sheet.caption}" if sheet.caption else "") + f"\n\n{table}\n")
    return "\n".join(parts)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def overview(result: Mapping[str, Any]) -> Table:
    """The first table for a terminal."""
    sheet = sheets(result)[0]
    table = Table(*map(shown, sheet.header), caption=sheet.caption, caption_justify="left")
    for row in sheet.rows:
        table.add_row(*map(shown, row))
    return table
