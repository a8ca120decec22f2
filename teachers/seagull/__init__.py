"""SEAGULL: quality and importance of the regions of a picture, by a vision-language model.

Source: Chen et al. 2024, "SEAGULL: No-reference Image Quality Assessment for Regions of Interest via Vision-Language
Instruction Tuning", arXiv 2411.10161, and the authors' code (Apache-2.0), from which the facts are taken. The parts are
a frozen ConvNeXt-Large of CLIP (196 M parameters), a mask-based feature extractor (103 M), a projector (20 M) and a
language model of LLaMA's class (6.7 B). Published SRCC with people's ratings of SEAGULL-3k: 0.745 for quality, 0.860
for importance.

Our own choices, where paper and code leave something open:

* **Numbers**: the expectation over the five level words, at the token of the answer where they differ; the word stays
  beside it.
* **Regions one by one**: in the extractor, the regions of a picture attend to each other, so that a score would depend
  on which regions are asked with it. By default each gets the score that it would get alone; ``together`` is the
  authors' way.
* **Shared work**: the features of a picture, and the language model's keys and values of all that stands before a
  region, are computed once for all its regions and questions.
* **Severity** is asked with a question of ours by models that are fitted here; of the published one it is read from the
  answer on the type, where it stands there.
* **Precision**: extractor and projector in float32; the authors compute them in bfloat16 and float16.
"""

from teachers.seagull.build import build_seagull
from teachers.seagull.extractor import ExtractorSizes, MaskExtractor, load_official_extractor
from teachers.seagull.official import Official, load_official
from teachers.seagull.teacher import RegionScore, SeagullTeacher, box_masks

__all__ = [
    "ExtractorSizes",
    "MaskExtractor",
    "Official",
    "RegionScore",
    "SeagullTeacher",
    "box_masks",
    "build_seagull",
    "load_official",
    "load_official_extractor",
]
