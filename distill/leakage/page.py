"""``overlap.html``: the result with pictures of the closest pairs, in one file that loads nothing else."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill.html.figures import thumbnail
from distill.html.markup import Html, document, shortened, tag
from distill.html.plots import Series, histogram
from distill.html.style import CSS
from distill.html.tables import Section, count, counted, data, decimals, percent, soft, table, with_interval
from distill.leakage.compare import Compared
from distill.leakage.image_sets import Image
from distill.leakage.record import ALL_IMAGES, closest, copied, images_in_words, in_words
from pseudo_labels.images import ImageError, decode

PAGE = "overlap.html"
# Pairs that are shown as the closest, and on each side of the threshold.
_CLOSEST, _BESIDE = 24, 6


def gallery(rows: Sequence[Mapping[str, Any]], trained: Sequence[Image], tested: Sequence[Image]) -> Html:
    """A figure for each pair.

    Args:
        rows: entries of ``images`` in ``overlap.json``.
        trained: training images, which contain the neighbours.
        tested: test images, which contain the images of ``rows``.
    """
    trained_of = {image.sample.id: image for image in trained}
    tested_of = {image.sample.id: image for image in tested}
    return tag("div", [_pair(row, tested_of[row["id"]], trained_of[row["nearest"]]) for row in rows], class_="pairs")


def _pair(row: Mapping[str, Any], tested: Image, trained: Image) -> Html:
    pair = tag("div", _picture(tested, "tested"), _picture(trained, "trained"), class_="pair")
    scores = tag(
        "figcaption",
        [tag("b", "cosine ", data(row["cosine"], decimals)),
        "; scores ", data(row["score"], _two), " and ", data(row["nearest_score"], _two), tag("br"),
        f"{shortened(row['name'], 40)} and {shortened(row['nearest_name'], 40)}"],
    )  # fmt: skip
    return tag("figure", pair, scores)


def _picture(image: Image, image_set: str) -> Html:
    try:
        return thumbnail(decode(image.sample.read()), alt=f"{image_set}: {shortened(image.name)}")
    # Moved or deleted since its features were computed: the numbers of the page are still right.
    except ImageError as error:
        return tag("p", f"{image_set}: {error.reason}")


def _two(value: float) -> str:
    return decimals(value, 2)


def overlap_page(record: Mapping[str, Any], compared: Compared) -> str:
    """The page as HTML text.

    Args:
        record: result of ``compare.as_record``, with ``split`` added.
        compared: image sets that give the pictures.
    """
    sections = [
        _copying(record),
        _cosines(record),
        _closest(record, compared),
        _border(record, compared),
        _scenes(record),
    ]
    links = [tag("li", tag("a", section.title, href=f"#{section.id}")) for section in sections]
    trained, tested = record["trained"]["name"], record["tested"]["name"]
    title = f"Overlap of training and test: {trained}" + (f" and {tested}" if tested != trained else "")
    body = tag(
        "main",
        [
            tag("p", "pocketiqa overlap", class_="kicker"),
            tag("h1", title),
            tag("p", in_words(record), ".", class_="lead"),
            tag("dl", _tiles(record), class_="tiles"),
            tag("nav", tag("ul", links), aria_label="Sections"),
            *(section.html() for section in sections),
            tag("footer", "Every number on this page stands in ", tag("code", "overlap.json"), " with all its digits."),
        ],
    )
    return document(title, body, CSS)


def _tiles(record: Mapping[str, Any]) -> list[Html]:
    fraction = record["near"] / record["tested"]["compared"]
    tiles = [
        _tile("near duplicates", data(record["near"], count), f"{percent(fraction)} of those tested"),
        _tile("scenes in both sets", data(record["scenes"]["on_both_sides"], count), "trained and tested"),
    ]
    if record["copying"] is not None:
        whole = copied(record["copying"])[ALL_IMAGES]
        tiles.append(_tile("SRCC of copying", data(whole["srcc"]["value"], decimals), "the neighbour's score"))
    if record["marked"] is not None:
        marked = record["marked"]
        words = f"of {marked['marked']} that the benchmark marks"
        tiles.append(_tile("known before", data(marked["both"], count), words))
    return tiles


def _tile(label: str, value: Html, note: str) -> Html:
    return tag("div", tag("dt", label), tag("dd", value), tag("dd", note))


def _copying(record: Mapping[str, Any]) -> Section:
    title = "Copying the neighbour's score"
    if record["copying"] is None:
        return Section("copying", title, [tag("p", f"Not measured: {record['copying_reason']}.")])
    rows = []
    for name, part in copied(record["copying"]).items():
        rows.append([images_in_words(name), data(part["n"], count), with_interval(part["srcc"])])
    words = (
        "Each tested image is given the score of its nearest trained image, and nothing else. A model that "
        "remembers the training scenes gets this SRCC without measuring quality; what is left without near duplicates "
        "is what content alone predicts."
    )
    boots = record["copying"]["bootstrap"]
    note = f"Intervals: 95 %, {boots['resamples']} bootstrap resamples of whole groups (seed {boots['seed']})."
    return Section("copying", title, [soft(words), table(["images", "n", "SRCC"], rows), soft(note), _left_out(record)])


def _left_out(record: Mapping[str, Any]) -> list[object]:
    """Images that could not be compared, with reasons."""
    body: list[object] = []
    for image_set in ("trained", "tested"):
        coverage = record[image_set]
        if coverage["without"]:
            listed = [tag("li", tag("code", one["id"]), f": {one['reason']}") for one in coverage["examples"]]
            words = tag("p", f"Left out of the {image_set} images: ", counted(coverage["without"]), ".")
            body += [words, tag("details", tag("summary", "Examples"), tag("ul", listed))]
    return body


def _cosines(record: Mapping[str, Any]) -> Section:
    cosines = np.array([one["cosine"] for one in closest(record)], np.float64)
    # The axis begins at 0, or at the next lower tenth if a cosine is negative.
    low = min(0.0, float(np.floor(cosines.min() * 10) / 10))
    series = Series("tested images", "student", cosines, cosines)
    label = "cosine to the nearest trained image"
    chart = histogram(
        [series], x_label=label, title="Cosines of nearest neighbours", reach=(low, 1.0), mark=record["above"]
    )
    words = (
        f"The dashed line is the threshold, {record['above']:g}. A cosine has no absolute meaning: which threshold "
        "separates other pictures of one scene from merely similar ones differs from model to model; check it below."
    )
    return Section(
        "cosines", "Cosines of nearest neighbours", [soft(words), tag("div", tag("figure", chart), class_="charts")]
    )


def _closest(record: Mapping[str, Any], compared: Compared) -> Section:
    rows = closest(record)[:_CLOSEST]
    words = f"The {len(rows)} tested images with the nearest neighbours: tested on the left, trained on the right."
    pictures = gallery(rows, compared.trained.images, compared.tested.images)
    return Section("closest", "The closest pairs", [soft(words), pictures])


def _border(record: Mapping[str, Any], compared: Compared) -> Section:
    rows = closest(record)
    # Sorted by cosine, so the near duplicates come first and this is where they end.
    split = sum(one["near"] for one in rows)
    above, below = rows[max(0, split - _BESIDE) : split], rows[split : split + _BESIDE]
    words = "Whether the threshold is right for this model and these images: pairs just above it, and just below."
    body: list[object] = [soft(words)]
    for title, some in (("Just above, counted as near duplicates", above), ("Just below, not counted", below)):
        pictures = gallery(some, compared.trained.images, compared.tested.images)
        body += [tag("h3", title), pictures if some else soft("None.")]
    return Section("border", "At the threshold", body)


def _scenes(record: Mapping[str, Any]) -> Section:
    scenes, split = record["scenes"], record["split"]
    title = "Scenes, and a split that keeps them whole"
    words = tag(
        "p", [data(scenes["scenes"], count), " scenes, chains of near duplicates and known groups, ",
        data(scenes["on_both_sides"], count), " of them in both sets; the largest has ",
        data(scenes["largest"], count), " images. ", tag("code", "groups.csv"), " names the scene of every image."],
    )  # fmt: skip
    if split["reason"]:
        return Section("scenes", title, [words, soft("No split: ", split["reason"], ".")])
    made = tag(
        "p", tag("code", "split.csv"), " is a benchmark to learn from: ", counted(split["images"]),
        ". The tested images stay the test part, trained images of their scenes are left out, and validation is whole "
        "scenes of the rest.",
    )  # fmt: skip
    use = tag("pre", tag("code", _use()), tabindex="0")
    return Section("scenes", title, [words, made, use])


def _use() -> str:
    recipe = "sources: [{ratings: 'csv:DIR/split.csv', split: train}]      # in a recipe"
    return f"{shlex.join(['pocketiqa', 'evaluate', 'MODEL', '--on', 'BENCHMARK', '--near', 'DIR'])}\n{recipe}"
