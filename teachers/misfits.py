"""Tensors that are not those of a module: which are missing, foreign or of another shape."""

from collections.abc import Collection, Mapping

from torch import Tensor


def misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What keeps ``given`` from replacing ``own``, to stand behind a subject; empty if nothing does."""
    wrong_shape = [
        f"{name} of shape {list(given[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    faults = [
        ("it lacks", [name for name in own if name not in given]),
        ("it has the foreign", [name for name in given if name not in own]),
        ("it has", wrong_shape),
    ]
    return ", and ".join(f"{verb} {some(names)}" for verb, names in faults if names)


def some(names: Collection[str]) -> str:
    """The first three names, and how many more there are."""
    listed = sorted(map(str, names))
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
