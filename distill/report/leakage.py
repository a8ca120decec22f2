"""The section on tested images that the models have learned from: by file, by picture, and by what they show."""

from collections.abc import Mapping
from typing import Any

from distill.evaluation.evaluate import ALL, CLEAN
from distill.html.markup import Html, shortened, tag
from distill.html.tables import Section, count, counted, data, soft, table, with_interval
from distill.leakage.page import gallery
from distill.leakage.record import WITHOUT_NEAR, images_in_words
from distill.report.content import evaluations
from distill.report.inputs import Neighbours, ReportInputs

_METRICS = {"srcc": "SRCC", "plcc": "PLCC", "krcc": "KRCC", "rmse": "RMSE"}
_SELECTIONS = {ALL: "all images", CLEAN: WITHOUT_NEAR}


def overlap(content: Mapping[str, Any], inputs: ReportInputs) -> Section | None:
    """The held-out part and each benchmark, looked for in what was learned from."""
    body = _same_pictures(content)
    if content["neighbours"]:
        # All three begin with the held-out part and continue with the benchmarks in the recipe's order.
        for record, one, evaluation in zip(content["neighbours"], inputs.neighbours, evaluations(content), strict=True):
            body += [tag("h3", record["name"]), *_same_scenes(record, one, evaluation)]
    return Section("overlap", "Overlap of training and test", body) if body else None


def _same_scenes(record: Mapping[str, Any], one: Neighbours, evaluation: Mapping[str, Any]) -> list[object]:
    """Other photographs of scenes that were learned from, which hashes do not recognise."""
    if record["reason"]:
        return [tag("p", f"Not compared by features: {record['reason']}.")]
    pictures = gallery(record["pairs"], one.trained, one.tested)
    summary = tag("summary", "The closest pair of each scene, tested on the left")
    return [
        tag("p", record["words"], "."),
        _copying(record),
        _with_and_without(evaluation),
        _files(record),
        tag("details", summary, pictures, open="") if record["pairs"] else None,
    ]


def _copying(copying: Mapping[str, Any]) -> Html:
    """SRCC of a model that only repeats the score of the nearest training image."""
    if copying["copying"] is None:
        return soft(f"Copying the neighbour's score was not measured: {copying['copying_reason']}.")
    rows = []
    for name, part in copying["copying"].items():
        why = soft(part["srcc"]["reason"]) if part["srcc"]["reason"] else None
        rows.append([images_in_words(name), data(part["n"], count), tag("div", with_interval(part["srcc"]), why)])
    caption = "Each image given the score of its nearest trained image, and nothing else"
    return table(["images", "n", "SRCC of copying"], rows, caption=caption)


def _with_and_without(evaluation: Mapping[str, Any]) -> Html:
    """The metrics of every model with the images that were found, and without."""
    if CLEAN not in evaluation["selections"]:
        return soft("No image is left out for being near, so each figure of this page is of all images.")
    rows = []
    for model in evaluation["models"]:
        # Both figures of a model together: how much the near duplicates flatter it is what the reader compares.
        for selection, words in _SELECTIONS.items():
            part = model["selections"][selection]
            cells = [with_interval(part["metrics"][metric]) for metric in _METRICS]
            rows.append([model["name"], words, data(part["n"], count), *cells])
    caption = f"Evaluated on {evaluation['target']['name']}, with and without what was found"
    return table(["model", "images", "n", *_METRICS.values()], rows, caption=caption)


def _files(record: Mapping[str, Any]) -> Html:
    """Links to the files of scenes, of the split and of all pairs."""
    scenes, split = record["scenes"], record["split"]
    words: list[object] = [
        data(scenes["on_both_sides"], count), " of ", data(scenes["scenes"], count), " scenes are on both sides; ",
        _link(record, "groups.csv"), " names the scene of every image. ",
    ]  # fmt: skip
    if split["reason"]:
        words.append(f"No split was made of them: {split['reason']}. ")
    else:
        words += [_link(record, "split.csv"), " keeps them whole, to learn from: ", counted(split["images"]), ". "]
    return tag("p", words, _link(record, "overlap.html"), " shows more pairs.")


def _link(record: Mapping[str, Any], file: str) -> Html:
    return tag("a", file, href=f"{record['folder']}/{file}")


def _same_pictures(content: Mapping[str, Any]) -> list[object]:
    """Paragraphs on equal files and on pictures with almost equal difference hashes."""
    overlap = content["overlap"]
    if overlap is None:
        return []
    words = [
        data(overlap["tested"], count),
        " test images were looked for among ",
        data(overlap["trained"], count),
        " training images: ",
        data(overlap["same_file"], count),
        " found as the same file (sha256), ",
        data(overlap["near"], count),
        f" as nearly the same picture (difference hash, at most {overlap['near_distance']} of 64 bits apart).",
    ]
    limit = "Other pictures of the same scene are invisible to both tests: for these, features are compared."
    rows = [
        [
            tag("code", shortened(m["tested"])),
            m["kind"],
            tag("code", shortened(m["trained_name"])),
            data(m["bits"], count),
        ]
        for m in overlap["examples"]
    ]
    listed = table(["test image", "kind", "training image", "bits apart"], rows, caption="Examples") if rows else None
    return [tag("p", words), soft(limit), listed]
