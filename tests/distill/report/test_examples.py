"""Sections with pictures: which images, with which numbers, and what happens where a picture cannot be had."""

from typing import Any

import numpy as np

from distill.html.tables import decimals, signed
from distill.report.content import build_content
from distill.report.examples import disagreement, distorted, maps
from pseudo_labels.images import ImageError
from pseudo_labels.records import Status
from tests.helpers.markup import parsed
from tests.helpers.report_sample import sample_inputs


def page_of(section: Any) -> Any:
    return parsed("".join(map(str, section.body)))


def test_the_farthest_images_are_those_with_the_largest_difference():
    inputs = sample_inputs()
    content = build_content(inputs)
    scores = next(one for one in inputs.predictions if one.name == inputs.model).scores
    difference = np.abs(scores - inputs.targets.scores)
    farthest = [row["at"] for row in content["disagreement"]]
    assert sorted(farthest, key=lambda at: -difference[at]) == farthest
    assert set(farthest) == set(np.argsort(-np.nan_to_num(difference))[: len(farthest)].tolist())
    page = page_of(disagreement(content, inputs))
    for row in content["disagreement"]:
        assert signed(row["difference"]) in page.text


def test_an_image_that_cannot_be_read_keeps_its_scores():
    def gone(id: str) -> np.ndarray:
        raise ImageError(Status.MISSING, f"{id} is gone")

    inputs = sample_inputs(load_image=gone)
    content = build_content(inputs)
    page = page_of(disagreement(content, inputs))
    assert not [name for name, _ in page.tags if name == "img"]
    assert decimals(content["disagreement"][0]["score"], 2) in page.text


def test_a_map_names_its_own_range():
    inputs = sample_inputs()
    page = page_of(maps(build_content(inputs), inputs))
    for one in inputs.quality_maps:
        assert f"low {one.quality_map.min():.2f}" in page.text
        assert f"high {one.quality_map.max():.2f}" in page.text
    assert maps(build_content(sample_inputs(quality_maps=[])), sample_inputs(quality_maps=[])) is None


def test_copies_that_are_not_lower_are_not_counted():
    inputs = sample_inputs()
    page = page_of(distorted(build_content(inputs), inputs))
    assert "gives 2 of 3 distorted copies a lower score than the original" in page.text
    classes = [attributes.get("class") for name, attributes in page.tags if name == "span"]
    assert classes.count("down") == 2
    assert classes.count("up") == 1
