"""Sections on where everything comes from: data, teachers, the command."""

from collections.abc import Mapping
from typing import Any

from distill.html.markup import Html, tag
from distill.html.tables import Section, count, counted, data, soft, table
from distill.report.content import evaluations

# 64 bits: enough to compare two digests by eye, and narrow enough for a table.
_DIGEST_SHOWN = 16


def digest(value: object) -> Html:
    """The first digits of a digest; all of it on hovering."""
    text = str(value)
    shown = text[:_DIGEST_SHOWN] + ("…" if len(text) > _DIGEST_SHOWN else "")
    return tag("code", shown, title=text, class_="digest")


def provenance(content: Mapping[str, Any]) -> Section | None:
    """Pools, split, teachers."""
    body: list[object] = [_pools(content), _split(content), _teachers(content), _ratings(content)]
    return Section("data", "Where the data comes from", body) if any(body) else None


def _pools(content: Mapping[str, Any]) -> list[object] | None:
    if not content["pools"]:
        return None
    rows, details = [], []
    for pool in content["pools"]:
        statuses = counted(pool.get("statuses", {}))
        rows.append(
            [
                pool.get("name", "pool"),
                data(pool.get("images"), count),
                data(pool.get("groups"), count),
                statuses or "–",
                pool.get("licence") or "not stated",
                digest(pool["digest"]) if pool.get("digest") else "–",
            ]
        )
        if pool.get("distortions"):
            summary = tag("summary", f"{len(pool['distortions'])} distortions in {pool.get('name', 'pool')}")
            details.append(tag("details", summary, tag("p", counted(pool["distortions"]), class_="soft")))
    header = ["data", "images", "groups", "by status", "licence", "digest"]
    return [tag("h3", "Images"), table(header, rows), details]


def _split(content: Mapping[str, Any]) -> list[object] | None:
    if not content["split"]:
        return None
    rows = [
        [name, data(part.get("images"), count), data(part.get("groups"), count)]
        for name, part in content["split"].items()
    ]
    words = soft("Split by group: no scene, and no reference with its distorted copies, is in two parts.")
    return [tag("h3", "Split"), words, table(["part", "images", "groups"], rows)]


def _teachers(content: Mapping[str, Any]) -> list[object] | None:
    stamps = content["teachers"]
    if not stamps:
        return None
    rows = []
    for stamp in stamps:
        options = ", ".join(f"{key} = {value}" for key, value in stamp.get("options", {}).items()) or "none"
        rows.append([stamp["name"], str(stamp["version"]), _digests(stamp), options, stamp["scale"], stamp["licence"]])
    return [tag("h3", "Teachers"), table(["teacher", "version", "digests", "options", "scale", "licence"], rows)]


def _digests(stamp: Mapping[str, Any]) -> Html:
    """Digests of all weights and of the stamp; of a fitted teacher also that of its frozen part."""
    known = [(key, stamp[key]) for key in ("weights", "base", "digest") if stamp.get(key)]
    words = {"weights": "weights", "base": "frozen base", "digest": "stamp"}
    return tag("div", [tag("div", f"{words[key]} ", digest(value)) for key, value in known])


def _ratings(content: Mapping[str, Any]) -> list[object] | None:
    """Origin of the ratings that the models were evaluated on."""
    targets = [evaluation["target"] for evaluation in evaluations(content)]
    # By name, so that a benchmark that is evaluated in two parts is cited once.
    cited = {one["name"]: one for one in targets if one["source"] == "opinions" and one["about"].get("citation")}
    return [tag("h3", "Evaluated on the ratings of"), *map(_target, cited.values())] if cited else None


def _target(target: Mapping[str, Any]) -> list[object]:
    about = target["about"]
    parts = [
        tag("b", target["name"]),
        f": {about['citation']}. Scale {about['scale']}; split {about['split_origin']}; licence: {about['licence']}.",
    ]
    notes = [tag("li", note) for note in about.get("notes", ())]
    return [tag("p", parts), tag("ul", notes) if notes else None]


def repeat(content: Mapping[str, Any]) -> Section | None:
    """The command that makes this page again."""
    if not content["command"]:
        return None
    return Section("repeat", "Repeat it", [tag("pre", tag("code", content["command"]), tabindex="0")])
