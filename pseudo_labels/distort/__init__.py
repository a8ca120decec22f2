"""Synthetic distortion: 25 distortions of KADID-10k, six camera-like ones of SEAGULL-100w, four of the Waterloo set."""

from pseudo_labels.distort.catalogue import (
    CATALOGUE,
    DISTORTIONS,
    WATERLOO,
    Distortion,
    distort,
    effects,
    families,
    groups,
    select,
)
from pseudo_labels.distort.preview import contact_sheet, write_contact_sheet
from pseudo_labels.distort.synth import build_synthetic_pool

__all__ = [
    "CATALOGUE",
    "DISTORTIONS",
    "WATERLOO",
    "Distortion",
    "build_synthetic_pool",
    "contact_sheet",
    "distort",
    "effects",
    "families",
    "groups",
    "select",
    "write_contact_sheet",
]
