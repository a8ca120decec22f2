"""Teachers by name. Importing this module imports no torch; a builder imports what it needs."""

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

from pseudo_labels.errors import PocketiqaError, install_command
from teachers.fitted_folder import is_fitted_folder, read_fitted_folder
from teachers.needs import missing_files

if TYPE_CHECKING:
    from teachers.base import Teacher
    from teachers.composite.multi_view import Views

_VIEWS = "views"


@dataclass(frozen=True)
class TeacherEntry:
    """How a teacher is built.

    Attributes:
        load: imports and gives the builder, whose keyword arguments are the teacher's options.
        summary: one line for help texts.
        requires: distributions that must be installed, as pip names them.
        files: what the user must supply besides, in words; empty if nothing.
        speed: options that change time, memory and rounding, or where things come from, but no result by design.
        solved: whether it is solved at once (``fitting.SolvableTeacher``), and not trained in steps.
    """

    load: Callable[[], Callable[..., Any]]
    summary: str
    requires: tuple[str, ...]
    files: str = ""
    speed: tuple[str, ...] = ()
    solved: bool = False


def _reference() -> Callable[..., Any]:
    from teachers.reference import build_reference

    return build_reference


def _dp_iqa() -> Callable[..., Any]:
    from teachers.dp_iqa import build_dp_iqa

    return build_dp_iqa


def _sam_iqa() -> Callable[..., Any]:
    from teachers.sam_iqa import build_sam_iqa

    return build_sam_iqa


def _qfm_iqm() -> Callable[..., Any]:
    from teachers.qfm_iqm import build_qfm_iqm

    return build_qfm_iqm


def _kernel_ridge() -> Callable[..., Any]:
    from teachers.kernel_ridge import build_kernel_ridge

    return build_kernel_ridge


def _seagull() -> Callable[..., Any]:
    from teachers.seagull import build_seagull

    return build_seagull


def _embedded() -> Callable[..., Any]:
    from teachers.embedded import build_embedded

    return partial(build_embedded, build_teacher)


def _anchored() -> Callable[..., Any]:
    from teachers.composite.anchored import build_anchored

    return partial(build_anchored, build_teacher)


def _fused() -> Callable[..., Any]:
    from teachers.composite.fused import build_fused

    return partial(build_fused, build_teacher)


TEACHERS: dict[str, TeacherEntry] = {
    "embedded": TeacherEntry(
        _embedded,
        "learned from people (BIQ2021) and comes with the package; needs no reference",
        ("torch", "timm", "safetensors"),
    ),
    "reference": TeacherEntry(
        _reference,
        "full-reference metrics (FSIM, VIF, GMSD, HaarPSI, MDSI) for synthetic pools; no weights",
        ("torch", "piq"),
    ),
    "anchored": TeacherEntry(
        _anchored,
        "for distorted pools: another teacher's score of the clean image, times what the distortion leaves of it",
        ("torch", "piq", "timm", "safetensors"),
    ),
    "dp_iqa": TeacherEntry(
        _dp_iqa,
        "Stable Diffusion's U-Net as a prior (DP-IQA)",
        ("torch", "torchvision", "diffusers", "transformers", "huggingface_hub", "safetensors"),
        "Stable Diffusion and CLIP weights, and a fitted head",
        ("channels_last", "attention_slicing", "compile", "checkpoint_blocks", "download"),
    ),
    "sam_iqa": TeacherEntry(
        _sam_iqa,
        "SAM's image encoder with spatial and Fourier branches (SAM-IQA)",
        ("torch", "torchvision", "segment-anything", "safetensors"),
        "SAM weights and a fitted head",
        ("checkpoint_blocks", "compile"),
    ),
    "qfm_iqm": TeacherEntry(
        _qfm_iqm,
        "any timm backbone, fitted with matched semantic noise (QFM-IQM)",
        ("torch", "timm", "safetensors"),
        "backbone weights and a fitted head",
    ),
    "kernel_ridge": TeacherEntry(
        _kernel_ridge,
        "statistics of a frozen timm backbone, solved at once (ridge and kernel ridge)",
        ("torch", "timm", "safetensors"),
        "backbone weights and a fitted head",
        solved=True,
    ),
    "seagull": TeacherEntry(
        _seagull,
        "a vision-language model that scores regions and whole images (SEAGULL)",
        ("torch", "timm", "transformers", "peft", "accelerate", "safetensors"),
        "copy of the published checkpoint of 14 GB",
        ("device_map", "regions_at_once"),
    ),
    "fused": TeacherEntry(
        _fused,
        "several teachers as one, joined as in a store that pocketiqa fuse wrote",
        ("torch",),
        "fused store and its teachers",
    ),
}


def missing_requirements(name: str) -> list[str]:
    """What must be installed before this teacher can be built: distributions, or the module of a user's own teacher.

    Raises:
        PocketiqaError: there is no such teacher.
    """
    if ":" in name:
        module = name.partition(":")[0]
        _look_in_current_folder()
        try:
            spec = importlib.util.find_spec(module)
        # ImportError: a package around the module is missing or fails. ValueError: a module without a specification, as
        # ``__main__`` may be.
        except (ImportError, ValueError):
            spec = None
        return [] if spec else [module]
    return [distribution for distribution in _entry(name).requires if not _installed(distribution)]


def _installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def build_teacher(name: str, **options: Any) -> "Teacher":
    """Build a teacher.

    Args:
        name: name in ``TEACHERS``, folder of a fitted teacher, or ``module:function`` for a builder of the user's own.
        options: keyword arguments of the builder; those of a fitted teacher are laid over the ones it was built with.
            And ``views``, ``composite.multi_view.Views`` or a mapping such as ``{"crops": 5, "flips": True}``, by which
            any teacher scores several views of each image, unless the builder has a parameter of that name itself.

    Raises:
        PocketiqaError: unknown name or option, something is not installed, or the builder gave no teacher.
    """
    if is_fitted_folder(name):
        name, kept = read_fitted_folder(name)
        options = {**kept, **options}
    missing = missing_requirements(name)
    if missing and ":" in name:
        raise PocketiqaError(
            f"teacher {name!r}: there is no module {missing[0]!r} in the current folder or among the installed packages"
        )
    lacks = lacking(name, options)
    if missing or len(lacks) > 1:  # of a single file, the builder speaks
        raise PocketiqaError(f"teacher {name!r} {_listed(lacks)}")
    return _built(name, _builder(name), options)


def lacking(name: str, options: Mapping[str, Any]) -> list[str]:
    """Words for all that a teacher lacks on this machine, each with the next step; imports no builder and no torch.

    Args:
        name: of ``TEACHERS``, the folder of a fitted teacher, or ``module:function``.
        options: of the teacher, which may name files.

    Raises:
        PocketiqaError: there is no such teacher.
    """
    if is_fitted_folder(name):
        name, kept = read_fitted_folder(name)
        options = {**kept, **options}
    missing = missing_requirements(name)
    if missing and ":" in name:
        return [f"needs the module {missing[0]!r} in the current folder or among the installed packages"]
    packages = f"needs {', '.join(missing)}: install them with {install_command('train', 'teachers')}"
    return [*([packages] if missing else []), *missing_files(name, options)]


def check_teacher_options(name: str, options: Mapping[str, Any]) -> type | None:
    """Refuse in a moment what ``build_teacher`` would refuse, as far as that can be known without building anything.

    Teachers that a teacher is made of are checked as well. Arguments are those of ``build_teacher``.

    Returns:
        The class of the teacher, where its builder says it; its ``needs_reference`` and ``feature_names`` may be known.

    Raises:
        PocketiqaError: unknown name or option, or something is missing on this machine: all of it is named.
    """
    lacks = lacking(name, options)
    if lacks:
        raise PocketiqaError(f"teacher {name!r} {_listed(lacks)}")
    if is_fitted_folder(name):
        name, kept = read_fitted_folder(name)
        options = {**kept, **options}
    builder, given = _builder(name), dict(options)
    if _VIEWS not in inspect.signature(builder).parameters:
        _read_views(given.pop(_VIEWS, None))
    _check_options(builder, name, given)
    for part, part_options in _parts(name, given):
        check_teacher_options(part, part_options)
    made = inspect.signature(builder).return_annotation
    return made if isinstance(made, type) and made is not inspect.Signature.empty else None


def _parts(name: str, options: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and options of each teacher that this one is made of."""
    if name == "anchored":
        return [(str(options.get("base", "embedded")), options.get("options") or {})]
    if name == "fused" and isinstance(options.get("teachers"), Mapping):
        members = [one for one in options["teachers"].values() if isinstance(one, Mapping) and "teacher" in one]
        return [(str(one["teacher"]), one.get("options") or {}) for one in members]
    return []


def _listed(lacks: list[str]) -> str:
    if len(lacks) == 1:
        return lacks[0] if lacks[0].startswith("needs") else f"cannot be built: {lacks[0]}"
    listed = "; ".join(f"({letter}) {words}" for letter, words in zip("abcdef", lacks, strict=False))
    return f"lacks {len(lacks)} things: {listed}"


def file_options(name: str) -> set[str]:
    """Options of a teacher that name files or folders: those that its builder annotates as paths.

    Args:
        name: name in ``TEACHERS``, or ``module:function``.
    """
    parameters = inspect.signature(_builder(name)).parameters
    # By the text of the annotation, because it is a union such as ``str | Path | None``, or quoted.
    return {option for option, parameter in parameters.items() if "Path" in str(parameter.annotation)}


def _builder(name: str) -> Callable[..., Any]:
    return _user_builder(name) if ":" in name else _entry(name).load()


def _built(name: str, builder: Callable[..., Any], options: dict[str, Any]) -> "Teacher":
    parameters = inspect.signature(builder).parameters
    # Taken out before the check: most builders do not know ``views``, which are laid around the teacher that they
    # build.
    wanted = None if _VIEWS in parameters else options.pop(_VIEWS, None)
    _check_options(builder, name, options)
    # Late, because they import torch: help texts and ``doctor`` read ``TEACHERS`` without it.
    from teachers.base import check_teacher
    from teachers.composite.multi_view import MultiView

    views = _read_views(wanted)  # before the builder, which may load weights for minutes
    teacher = check_teacher(builder(**options), name)
    # One view is the whole image: wrapped, the teacher would have another stamp for the same scores.
    return teacher if views is None or views.count == 1 else MultiView(teacher, views)


def _read_views(wanted: Any) -> "Views | None":
    from teachers.composite.multi_view import read_views

    return None if wanted is None else read_views(wanted)


def _entry(name: str) -> TeacherEntry:
    if name not in TEACHERS:
        raise PocketiqaError(
            f"unknown teacher {name!r}: choose {', '.join(sorted(TEACHERS))}, the folder of a fitted teacher, or "
            "module:function for your own"
        )
    return TEACHERS[name]


def _look_in_current_folder() -> None:
    """As ``python -m`` does, but not as an installed command does by itself."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def _user_builder(name: str) -> Callable[..., Any]:
    module_name, _, function = name.partition(":")
    builder = getattr(importlib.import_module(module_name), function, None)
    if not callable(builder):
        raise PocketiqaError(f"teacher {name!r}: module {module_name!r} has no function {function!r}")
    return builder


def _check_options(builder: Callable[..., Any], name: str, options: dict[str, Any]) -> None:
    signature = inspect.signature(builder)
    try:
        signature.bind(**options)
    except TypeError as error:
        known = ", ".join(dict.fromkeys([*signature.parameters, _VIEWS]))
        raise PocketiqaError(f"teacher {name!r}: {error}; its options are: {known}") from error
