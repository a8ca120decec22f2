"""The backbone: any timm model, read at several depths, and a cache of what a frozen one computes of each image.

Convolutional models give feature maps, transformers grids of tokens. ``create_timm`` and ``load_local`` build a model
with its weights, ``Backbone`` reads its maps, and ``CachedSummaries`` stores what they are summarised to.
"""

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
from pseudo_labels.files import digest_of, remove_leftovers, write_atomic
from pseudo_labels.tensor_files import misfits

FINAL = "final"
"""Name of the last depth of a convolutional model: the map that the model's own classifier pools."""

_TOKEN_DEPTHS = 4  # depths of a token model that are read when none are named
_PROBE_PX = 96  # side of the image that channels are counted with; some of timm's stems take nothing smaller
_SMALLEST_PX = 32  # the usual stride of the deepest map: a smaller image would leave no whole cell to pool
_RANDOM_LICENCE = "random weights"
_LOCAL_LICENCE = "backbone weights from a local file, licence not stated"
_STAGES = ("blocks", "stages")  # timm's names of the sequence of stages, where a model has one
_SUMMARY = "summary"  # name of the tensor in a cached file
_DIGITS = 16  # digits of a digest in the name of a folder


def create_timm(name: str, *, pad_type: str = "", pretrained: bool = False) -> nn.Module:
    """A timm model without its classifier; token models take any input size where timm allows it.

    Args:
        name: timm's name of the model.
        pad_type: timm's padding of convolutions, such as ``same``; empty for the model's own.
        pretrained: True takes the weights that timm fetches or has in its cache, False random ones.

    Raises:
        PocketiqaError: timm does not know the name, the model has no choice of padding, or its weights cannot be
            fetched.
    """
    _check_name(name)
    options: dict[str, Any] = {"num_classes": 0} | ({"pad_type": pad_type} if pad_type else {})
    # timm has no list of the options that a model takes, so the option is tried. Without pretrained weights here, so
    # that a TypeError is about an option and not about a download.
    try:
        model = timm.create_model(name, dynamic_img_size=True, **options)
        options["dynamic_img_size"] = True
    except TypeError:  # a convolutional model, or a token model of one input size
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
    """The model with timm's weights. The options are known to be valid, so any error is one of the download."""
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


def build_backbone(
    name: str,
    *,
    weights: str | Path | None,
    pretrained: bool | None,
    pad_type: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    depths: Sequence[str],
) -> tuple["Backbone", str]:
    """A backbone with its weights, as the options of a teacher name it, and the licence of these weights.

    Random weights are drawn from torch's generator of the CPU: the caller seeds it.

    Args:
        name: timm's name of the model.
        weights: safetensors file under timm's key names.
        pretrained: without such a file, True takes timm's weights, False random ones.
        pad_type: timm's padding of convolutions; empty for the model's own.
        mean: mean of R, G and B in [0, 1] that the weights expect; None takes timm's value.
        std: their standard deviation, in the same unit; None takes timm's value.
        depths: names of the depths that are read; empty takes those of ``Backbone``.

    Raises:
        PocketiqaError: an unknown model, or weights that are missing, corrupt or of another one.
    """
    network = create_timm(name, pad_type=pad_type, pretrained=bool(pretrained))
    if weights is not None:
        load_local(network, Path(weights).expanduser())
    stated: Any = timm.get_pretrained_cfg(name)
    backbone = Backbone(network, mean or stated.mean, std or stated.std, depths)
    if weights is not None:
        return backbone, _LOCAL_LICENCE
    if not pretrained:
        return backbone, _RANDOM_LICENCE
    return backbone, f"backbone weights by timm: {getattr(stated, 'license', None) or 'licence not stated'}"


def _check_name(name: str) -> None:
    # timm reads names with a colon or a slash as addresses of models on the hub, and would fetch them.
    if not set(name) & set(":/") and timm.is_model(name):
        return
    similar = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(similar)}?" if similar else "`timm.list_models()` names them all"
    raise PocketiqaError(f"timm has no backbone {name!r}: {hint}")


def load_local(model: nn.Module, path: Path) -> None:
    """Load a safetensors file with timm's key names into ``model``; further tensors, as of a classifier, are ignored.

    Raises:
        PocketiqaError: there is no file, it is no safetensors file, or a tensor is missing or of another shape.
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
    # Many files lack batch normalisation's counter, which only training with momentum None reads.
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


class Backbone(nn.Module):
    """A timm model that normalises its input and returns feature maps.

    It is always in evaluation mode: batch normalisation keeps the statistics of its weights (a batch of photographs in
    the fitting size has others), and nothing in it is random.

    Args:
        model: model of ``create_timm``, weights loaded.
        mean: mean of R, G and B in [0, 1] that the weights expect.
        std: standard deviation of R, G and B that the weights expect, in the same unit; above 0.
        depths: names out of ``known_depths``; empty for all depths of a convolutional model, or four of a token model.

    Attributes:
        input_mean: mean of R, G and B in [0, 1] that its input is normalised by.
        input_std: standard deviation of R, G and B that its input is normalised by.
        depths: names of the depths that are read, in order of execution.
        channels: number of channels of each depth's map.
        multiple_px: number of pixels that both sides of the input must be a multiple of.
        fixed_px: height and width of the only input size that the model takes; None if it takes many.
        smallest_px: least shorter side of an input, in pixels.

    Raises:
        PocketiqaError: a depth does not exist, the model gives no maps, or mean and std are not three numbers each.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float], depths: Sequence[str] = ()):
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise PocketiqaError(f"mean {mean} and std {std}: three numbers each, std above 0, are needed")
        self._has_tokens = _has_tokens(model)
        # 1x1 convolutions, most of the work of such models, are a third faster in this layout on the CPU, and faster on
        # GPUs too.
        self._layout = torch.preserve_format if self._has_tokens else torch.channels_last
        self.model: Any = model.eval().to(memory_format=self._layout)
        self.input_mean, self.input_std = tuple(mean), tuple(std)
        # Times 255, so that pixels need no division of their own. Not in the state dict: they come from the options.
        self.register_buffer("mean", 255 * torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).reshape(3, 1, 1), persistent=False)
        self.multiple_px, self.fixed_px = _input_size(self.model)
        self.smallest_px = max(self.multiple_px, _SMALLEST_PX)
        self.depths, self.channels = self._choose(depths)

    def train(self, mode: bool = True) -> "Backbone":
        """Set ``training`` of this module, but leave the timm model in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """RGB [B, 3, H, W] in [0, 255] to one float32 map [B, C, h, w] for each of ``depths``."""
        dtype = next(self.model.parameters()).dtype
        normed = ((rgb.float() - self.mean) / self.std).to(dtype, memory_format=self._layout)
        maps = self._maps(normed, self.depths)
        return [one.float() for one in maps]

    def _maps(self, x: Tensor, depths: Sequence[str]) -> list[Tensor]:
        if self._has_tokens:
            indices = [int(name) for name in depths]
            options = {"norm": True, "output_fmt": "NCHW", "intermediates_only": True}
            return self.model.forward_intermediates(x, indices=indices, **options)
        with _taps(self.model, depths) as outputs:
            outputs[FINAL] = self.model.forward_features(x)
        return [outputs[name] for name in depths]

    def _choose(self, requested: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Depths in order of execution with their numbers of channels, measured with one gray image."""
        known = known_depths(self.model)
        unknown = [name for name in requested if name not in known]
        if unknown:
            raise PocketiqaError(
                f"the backbone has no depth {unknown[0]!r}: choose {', '.join(known) or 'another one'}"
            )
        default = _spread(known, _TOKEN_DEPTHS) if self._has_tokens else known
        chosen = [name for name in known if name in requested] or list(default)
        maps = self._probe(chosen)
        if not requested and chosen[-1] == FINAL and len(maps) > 1 and maps[-1].shape == maps[-2].shape:
            chosen, maps = chosen[:-1], maps[:-1]  # no layers after the last stage: the same map would count twice
        return tuple(chosen), tuple(one.shape[1] for one in maps)

    def _probe(self, depths: Sequence[str]) -> list[Tensor]:
        side = -(-_PROBE_PX // self.multiple_px) * self.multiple_px
        try:
            with torch.no_grad():
                maps = self._maps(torch.zeros(1, 3, *(self.fixed_px or (side, side))), depths)
        except Exception as error:  # models outside timm's conventions raise errors of many kinds
            reason = " ".join(str(error).split())[:120]
            raise PocketiqaError(f"the backbone gives no feature maps ({reason}): choose another one") from error
        flat = [name for name, one in zip(depths, maps, strict=True) if one.ndim != 4]
        if flat:
            raise PocketiqaError(f"depth {flat[0]!r} of the backbone gives no feature map: choose other depths")
        return maps


@contextmanager
def _taps(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """A dict that receives the outputs of the named modules while the ``with`` block runs."""
    outputs: dict[str, Tensor] = {}

    def store(name: str) -> Any:
        return lambda _module, _inputs, output: outputs.__setitem__(name, output)

    # Hooks for one pass only: permanent ones would be copied with the model, and a copy's would write to the dict of
    # the original.
    hooks = [model.get_submodule(name).register_forward_hook(store(name)) for name in names if name != FINAL]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _has_tokens(model: Any) -> bool:
    """Whether stages return tokens or channels-last maps, which only timm's own reader turns into [B, C, h, w]."""
    layout = getattr(model, "output_fmt", "NCHW")
    return hasattr(model, "cls_token") or hasattr(model, "patch_embed") or str(layout) != "NCHW"


def known_depths(model: Any) -> tuple[str, ...]:
    """Names of depths in order of execution.

    For a convolutional model, the module names of its stages, and ``final``; for a token model, the numbers of its
    blocks, from 0.
    """
    stated = [str(entry["module"]) for entry in getattr(model, "feature_info", [])]
    if _has_tokens(model):
        return tuple(str(index) for index in range(len(stated)))
    parents = {name.rpartition(".")[0] for name in stated}
    if len(parents) == 1 and (parent := parents.pop()) in _STAGES:
        # Of several stages with the same stride, timm lists only the last; here all are wanted.
        stated = [f"{parent}.{name}" for name, _ in model.get_submodule(parent).named_children()]
    return (*stated, FINAL)


def _spread(names: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of the names, evenly spaced, always with the last."""
    count = min(count, len(names))
    return [names[(index + 1) * len(names) // count - 1] for index in range(count)]


def _input_size(model: Any) -> tuple[int, tuple[int, int] | None]:
    """Pixels that both sides must be a multiple of; and height and width of the only input size, None if any fits."""
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


class CachedSummaries:
    """A cache of image summaries on disk: one file per image, named by the digest of its pixels.

    Images that are not cached yet pass the backbone one by one, so that a summary does not depend on the batch that it
    was first needed in. Any number of processes may use one folder.

    Args:
        folder: folder of the cache; created with the first file.
        made_by: everything that a summary depends on besides pixels, device and threads: the backbone's digest and
            settings, as JSON values. Each combination has a subfolder of its own.
    """

    def __init__(self, folder: Path, made_by: dict[str, Any]):
        self.folder, self._made_by = folder, made_by
        self._cleaned: set[Path] = set()

    def of(self, rgb: Tensor, summarise: Callable[[Tensor], Tensor]) -> Tensor:
        """Summaries [B, D] of images, read from the cache or computed and added to it.

        Args:
            rgb: images [B, 3, H, W].
            summarise: computes summaries [B, D] of images [B, 3, H, W].

        Returns:
            float32 [B, D], on the images' device.

        Raises:
            StorageFullError: the disk is full.
        """
        subfolder = self._subfolder(rgb.device.type)
        return torch.cat([self._one(subfolder, image[None], summarise) for image in rgb])

    def _subfolder(self, device: str) -> Path:
        # Sums over another number of CPU threads are taken in another order, and so round differently.
        threads = torch.get_num_threads() if device == "cpu" else 0
        made_by = {**self._made_by, "device": device, "threads": threads, "autocast": torch.is_autocast_enabled(device)}
        return self.folder / digest_of(made_by)[:_DIGITS]

    def _one(self, subfolder: Path, image: Tensor, summarise: Callable[[Tensor], Tensor]) -> Tensor:
        path = subfolder / f"{_digest(image)}.safetensors"
        summary = _read(path)
        if summary is None:
            with torch.no_grad():
                summary = summarise(image)
            if subfolder not in self._cleaned:
                subfolder.mkdir(parents=True, exist_ok=True)
                remove_leftovers(subfolder)  # of killed processes; others may be writing here now
                self._cleaned.add(subfolder)
            # No lock: a file is written in one step, and processes that compute the same image agree up to rounding.
            write_atomic(path, save({_SUMMARY: summary.cpu()}))
        return summary.to(image.device)


def _digest(image: Tensor) -> str:
    pixels = image.cpu().contiguous()
    # With the shape: the same bytes are other images at other heights and widths.
    return hashlib.sha256(str(list(pixels.shape)).encode() + pixels.numpy().tobytes()).hexdigest()


def _read(path: Path) -> Tensor | None:
    """A cached summary; None if it is missing or corrupt, and so has to be computed again."""
    try:
        return load_file(path)[_SUMMARY]
    except (OSError, SafetensorError, KeyError):
        return None
