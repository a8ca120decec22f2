"""Sections on where everything comes from: overlap, data, teachers, the command."""

from collections.abc import Mapping
from typing import Any

from distill.report.examples import shortened
from distill.report.inputs import Neighbours, ReportInputs
from distill.report.lookup import evaluations
from distill.report.markup import Html, tag
from distill.report.numbers import count, counted, data, with_interval
from distill.report.pairs import gallery
from distill.report.tables import Section, soft, table

_DIGEST_SHOWN = 16


def digest(value: object) -> Html:
    """The first digits of a digest; all of it on hovering."""
    text = str(value)
    shown = text[:_DIGEST_SHOWN] + ("…" if len(text) > _DIGEST_SHOWN else "")
    return tag("code", shown, title=text, class_="digest")


def overlap(content: Mapping[str, Any], inputs: ReportInputs) -> Section | None:
    """Test images that were found in the training data, by file, by picture and by what they show."""
    pairs = zip(content["neighbours"], inputs.neighbours, strict=True)
    parts = [_same_pictures(content), *(_same_scenes(*pair) for pair in pairs)]
    body = [one for part in parts for one in part]
    return Section("overlap", "Overlap of training and test", body) if body else None


def _same_scenes(found: Mapping[str, Any], one: Neighbours) -> list[object]:
    """What an evaluation by hash cannot see: other pictures of what was learned from."""
    copying, scenes = found["copying"], found["scenes"]
    words: list[object] = [found["words"], ". "]
    if copying is None:
        words += [f"Copying the neighbour's score was not measured: {found['copying_reason']}. "]
    else:
        words += ["Copying the score of the nearest trained image, and nothing else: "]
        for name, part in copying.items():
            words += [f"{name}: SRCC ", with_interval(part["srcc"]), " (n ", data(part["n"], count), "); "]
    words += [
        data(scenes["on_both_sides"], count), " of ", data(scenes["scenes"], count), " scenes are on both sides. ",
        "A split that keeps scenes whole, and all pairs: ", tag("a", "overlap page", href=found["page"]), ".",
    ]  # fmt: skip
    shown = tag("details", tag("summary", "The closest pairs, tested on the left"),
                gallery(found["pairs"], one.trained.images, one.tested.images), open="")  # fmt: skip
    return [tag("h3", found["name"]), tag("p", words), shown if found["pairs"] else None]


def _same_pictures(content: Mapping[str, Any]) -> list[object]:
    """By file and by difference hash."""
    found = content["overlap"]
    if found is None:
        return []
    words = [
        data(found["tested"], count),
        " test images were looked for among ",
        data(found["trained"], count),
        " training images: ",
        data(found["same_file"], count),
        " found as the same file (sha256), ",
        data(found["near"], count),
        f" as nearly the same picture (difference hash, at most {found['near_distance']} of 64 bits apart).",
    ]
    limit = "Other pictures of the same scene are invisible to both tests: for these, features are compared."
    rows = [
        [
            tag("code", shortened(m["tested"])),
            m["kind"],
            tag("code", shortened(m["trained_name"])),
            data(m["bits"], count),
        ]
        for m in found["examples"]
    ]
    listed = table(["test image", "kind", "training image", "bits apart"], rows, caption="Examples") if rows else None
    return [tag("p", words), soft(limit), listed]


def provenance(content: Mapping[str, Any]) -> Section | None:
    """Pools, split, teachers."""
    body: list[object] = [_pools(content), _split(content), _teachers(content), _opinions(content)]
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
    words = soft("Split by group: no scene, and no reference with its damaged copies, is in two parts.")
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
    """Of all weights; of a fitted teacher also of what was frozen, and of the whole stamp."""
    known = [(key, stamp[key]) for key in ("weights", "base", "digest") if stamp.get(key)]
    words = {"weights": "weights", "base": "frozen base", "digest": "stamp"}
    return tag("div", [tag("div", f"{words[key]} ", digest(value)) for key, value in known])


def _opinions(content: Mapping[str, Any]) -> list[object] | None:
    """Where the opinions come from that the models were judged by."""
    targets = [evaluation["target"] for evaluation in evaluations(content)]
    cited = {one["name"]: one for one in targets if one["source"] == "opinions" and one["about"].get("citation")}
    return [tag("h3", "Judged by the opinions of"), *map(_target, cited.values())] if cited else None


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
