"""Any timm model, read at several depths: feature maps of convolutional models, token grids of transformers."""

import difflib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of, write_atomic
from pseudo_labels.tensor_files import misfits


def load_local(model: nn.Module, path: Path) -> None:
    """Take over a safetensors file with timm's key names; its classifier is ignored.

    Raises:
        PocketiqaError: not there, not safetensors, or not of this model.
    """
    if not path.is_file():
        raise PocketiqaError(
            f"no backbone weights at {path}: give weights=FILE, a safetensors file in timm's key names"
        )
    try:
        given = load_file(path)
    except (SafetensorError, OSError) as error:
        raise PocketiqaError(f"the backbone weights at {path} are not a safetensors file ({error})") from error
    own = model.state_dict()
    # Files without batch normalisation's counter are common, and only training with momentum None reads it.
    needed = {name: value for name, value in own.items() if not name.endswith("num_batches_tracked")}
    faults = misfits(needed, {name: value for name, value in given.items() if name in needed})
    if faults:
        raise PocketiqaError(f"{path} was made for another backbone ({faults}): give the file of this one")
    _copy(own, given)


@torch.no_grad()
def _copy(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    for name, value in own.items():
        if name in given:
            value.copy_(given[name])


_NAME = "summary"
_DIGITS = 16  # of a digest, in the name of a folder


class CachedSummaries:
    """One file an image, named by the digest of its pixels.

    Images that are not there yet pass the backbone one by one, so that a summary does not depend on the batch in which
    it was asked for first. Any number of processes may use one folder.

    Args:
        folder: made when something is kept.
        made_by: what a summary depends on beside pixels, device and threads: the backbone's digest and settings, as
            JSON values. Others have a subfolder of their own.
    """

    def __init__(self, folder: Path, made_by: dict[str, Any]):
        self.folder, self._made_by = folder, made_by

    def of(self, rgb: Tensor, summarise: Callable[[Tensor], Tensor]) -> Tensor:
        """Summaries [B, D] of images [B, 3, H, W], on their device.

        Raises:
            StorageFullError: the disk is full.
        """
        home = self._home(rgb.device.type)
        return torch.cat([self._one(home, image[None], summarise) for image in rgb])

    def _home(self, device: str) -> Path:
        # Another number of threads adds up in another order.
        threads = torch.get_num_threads() if device == "cpu" else 0
        made_by = {**self._made_by, "device": device, "threads": threads, "autocast": torch.is_autocast_enabled(device)}
        return self.folder / digest_of(made_by)[:_DIGITS]

    def _one(self, home: Path, image: Tensor, summarise: Callable[[Tensor], Tensor]) -> Tensor:
        path = home / f"{_digest(image)}.safetensors"
        found = _read(path)
        if found is None:
            with torch.no_grad():
                found = summarise(image)
            home.mkdir(parents=True, exist_ok=True)
            write_atomic(path, save({_NAME: found.cpu()}))
        return found.to(image.device)


def _digest(image: Tensor) -> str:
    pixels = image.cpu().contiguous()
    return hashlib.sha256(str(list(pixels.shape)).encode() + pixels.numpy().tobytes()).hexdigest()


def _read(path: Path) -> Tensor | None:
    """A summary; None if it is not there, or was damaged: then it is made again."""
    try:
        return load_file(path)[_NAME]
    except (OSError, SafetensorError, KeyError):
        return None


FINAL = "final"
"""Name of the depth behind all others: what the model's own classifier pools."""

_TOKEN_DEPTHS = 4
_PROBE_PX = 96  # of models that take any size: what the least tolerant of timm's stems needs
_SMALLEST_PX = 32  # the usual stride of the deepest map, of which one cell is the least that can be pooled
_STAGES = ("blocks", "stages")  # what timm calls the sequence of stages, where it has one


def create_timm(name: str, *, pad_type: str = "", pretrained: bool = False) -> nn.Module:
    """A timm model without its classifier; token models take any size where timm lets them.

    Args:
        name: timm's.
        pad_type: of convolutions; empty for the model's own.
        pretrained: with the weights that timm fetches or has in its cache; else random ones.

    Raises:
        PocketiqaError: timm does not know the name, the model has no choice of padding, or its weights cannot be had.
    """
    _check_name(name)
    options: dict[str, Any] = {"num_classes": 0} | ({"pad_type": pad_type} if pad_type else {})
    try:
        model = timm.create_model(name, dynamic_img_size=True, **options)
        options["dynamic_img_size"] = True
    except TypeError:  # convolutional, or a token model of one size
        model = _create(name, options)
    return _create_pretrained(name, options) if pretrained else model


def _create(name: str, options: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, **options)
    except TypeError as error:
        if "pad_type" in str(error):
            raise PocketiqaError(f"{name} has no choice of padding: leave pad_type out") from error
        raise


def _create_pretrained(name: str, options: dict[str, Any]) -> nn.Module:
    """The same with weights; the options are known to be fit, so what fails is the fetching."""
    stated: Any = timm.get_pretrained_cfg(name)
    source = getattr(stated, "hf_hub_id", None) or getattr(stated, "url", None)
    if not source:
        raise PocketiqaError(f"timm has no pretrained weights of {name}: give weights=FILE, or pretrained=False")
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub's client raises errors of several libraries
        reason = " ".join(str(error).split())[:160]
        raise PocketiqaError(
            f"timm could not fetch the weights of {name} ({reason}): check the network, or fetch model.safetensors of "
            f"{source} elsewhere and give its path as weights=FILE"
        ) from error


def _check_name(name: str) -> None:
    # timm reads names with a colon or a slash as addresses, and would fetch them.
    if not set(name) & set(":/") and timm.is_model(name):
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "`timm.list_models()` names them all"
    raise PocketiqaError(f"timm has no backbone {name!r}: {hint}")


class Backbone(nn.Module):
    """A timm model with its normalisation in front and its feature maps as output.

    It stays in evaluation mode whatever ``train`` is told: batch normalisation keeps the statistics of its weights (a
    batch of photographs in the fitting size has others), and nothing in it is random.

    Args:
        model: of ``create_timm``, weights loaded.
        mean: of RGB in [0, 1], as the weights expect it; [3].
        std: likewise.
        depths: of ``known_depths``; none stands for all of a convolutional model, for four of a token model.

    Attributes:
        depths: names, in order of execution.
        channels: of each depth's map.
        multiple_px: what both sides of the input are a multiple of.
        fixed_px: height and width of the only input it takes, or None.
        smallest_px: an image with a shorter side cannot be judged.

    Raises:
        PocketiqaError: a depth does not exist, the model gives no maps, or mean and std are no colours.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float], depths: Sequence[str] = ()):
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise PocketiqaError(f"mean {mean} and std {std}: three numbers each, std above 0, are needed")
        self._has_tokens = _has_tokens(model)
        # Convolutions of 1 x 1, most of what such models compute, are a third faster so on the CPU, and on GPUs too.
        self._layout = torch.preserve_format if self._has_tokens else torch.channels_last
        self.model: Any = model.eval().to(memory_format=self._layout)
        self.register_buffer("mean", 255 * torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).reshape(3, 1, 1), persistent=False)
        self.multiple_px, self.fixed_px = _input_size(self.model)
        self.smallest_px = max(self.multiple_px, _SMALLEST_PX)
        self.depths, self.channels = self._choose(depths)

    def train(self, mode: bool = True) -> "Backbone":
        """Remember the mode for those who ask, but let the model evaluate."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """RGB in [0, 255], [B, 3, H, W], to one float32 map [B, C, h, w] for each of ``depths``."""
        dtype = next(self.model.parameters()).dtype
        normed = ((rgb.float() - self.mean) / self.std).to(dtype, memory_format=self._layout)
        maps = self._maps(normed, self.depths)
        return [one.float() for one in maps]

    def _maps(self, x: Tensor, depths: Sequence[str]) -> list[Tensor]:
        if self._has_tokens:
            indices = [int(name) for name in depths]
            options = {"norm": True, "output_fmt": "NCHW", "intermediates_only": True}
            return self.model.forward_intermediates(x, indices=indices, **options)
        with _taps(self.model, depths) as taken:
            taken[FINAL] = self.model.forward_features(x)
        return [taken[name] for name in depths]

    def _choose(self, asked: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Depths in order of execution with their channels, from a run of one gray image."""
        known = known_depths(self.model)
        unknown = [name for name in asked if name not in known]
        if unknown:
            raise PocketiqaError(
                f"the backbone has no depth {unknown[0]!r}: choose {', '.join(known) or 'another one'}"
            )
        default = _spread(known, _TOKEN_DEPTHS) if self._has_tokens else known
        chosen = [name for name in known if name in asked] or list(default)
        maps = self._probe(chosen)
        if not asked and chosen[-1] == FINAL and len(maps) > 1 and maps[-1].shape == maps[-2].shape:
            chosen, maps = chosen[:-1], maps[:-1]  # the last stage is what the classifier pools
        return tuple(chosen), tuple(one.shape[1] for one in maps)

    def _probe(self, depths: Sequence[str]) -> list[Tensor]:
        side = -(-_PROBE_PX // self.multiple_px) * self.multiple_px
        try:
            with torch.no_grad():
                maps = self._maps(torch.zeros(1, 3, *(self.fixed_px or (side, side))), depths)
        except Exception as error:  # models outside timm's conventions fail in ways of their own
            reason = " ".join(str(error).split())[:120]
            raise PocketiqaError(f"the backbone gives no feature maps ({reason}): choose another one") from error
        flat = [name for name, one in zip(depths, maps, strict=True) if one.ndim != 4]
        if flat:
            raise PocketiqaError(f"depth {flat[0]!r} of the backbone gives no feature map: choose other depths")
        return maps


@contextmanager
def _taps(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Outputs of the named modules while the block runs, filled in as they come.

    Hooks live for one pass: those that stay would write into the original's list when called in a copy of the model.
    """
    taken: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: taken.__setitem__(name, output)

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names if name != FINAL]
    try:
        yield taken
    finally:
        for hook in hooks:
            hook.remove()


def _has_tokens(model: Any) -> bool:
    """Whether its stages hand on tokens or channels-last maps, which only the model itself can lay out."""
    layout = getattr(model, "output_fmt", "NCHW")
    return hasattr(model, "cls_token") or hasattr(model, "patch_embed") or str(layout) != "NCHW"


def known_depths(model: Any) -> tuple[str, ...]:
    """Names of depths in order of execution.

    Of a convolutional model the stages, by the names of its modules, and ``final``; of a token model its blocks by
    number, from 0.
    """
    stated = [str(entry["module"]) for entry in getattr(model, "feature_info", [])]
    if _has_tokens(model):
        return tuple(str(index) for index in range(len(stated)))
    parents = {name.rpartition(".")[0] for name in stated}
    if len(parents) == 1 and (parent := parents.pop()) in _STAGES:
        # Of stages with one stride, timm states only the last, but each says something.
        stated = [f"{parent}.{name}" for name, _ in model.get_submodule(parent).named_children()]
    return (*stated, FINAL)


def _spread(names: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of them, evenly spread, with the last."""
    count = min(count, len(names))
    return [names[(index + 1) * len(names) // count - 1] for index in range(count)]


def _input_size(model: Any) -> tuple[int, tuple[int, int] | None]:
    """Multiple of both sides, and the only size that the model takes, if it has one."""
    embed = getattr(model, "patch_embed", None)
    patch = getattr(embed, "patch_size", 1)
    multiple = max(patch) if isinstance(patch, tuple) else int(patch)
    if getattr(model, "dynamic_img_size", False):
        return multiple, None
    size = getattr(embed, "img_size", None)
    stated = getattr(model, "pretrained_cfg", None) or {}
    if size is None and stated.get("fixed_input_size"):
        size = stated["input_size"][1:]
    return multiple, None if size is None else (int(size[0]), int(size[1]))
