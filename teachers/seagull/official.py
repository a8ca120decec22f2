"""The published checkpoint, read strictly and as a stream: no tensor is in memory twice, no file is read as a whole.

Names are compared before any tensor is read, so that a checkpoint of another family, or one that lacks a shard, is
refused in a moment. Nothing in a file is ever run.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of, read_json
from pseudo_labels.tensor_files import misfits, read_torch_file, some, tensors_only
from teachers.checksummed import tensor_digest
from teachers.seagull.language import RegionTokenizer, read_tokenizer
from teachers.seagull.model import Seagull, Sizes, language_config, meta_model

MODEL_TYPE = "seagull"
_FETCH = "fetch all files of the published SEAGULL checkpoint into one folder"
# In order of preference.
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin")
# Keys of the published config.json that our configuration of the language model takes over.
_LANGUAGE_KEYS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("vocab_size", "hidden_act", "max_position_embeddings", "rms_norm_eps", "bos_token_id", "eos_token_id"),
    *("pad_token_id", "tie_word_embeddings"),
)
_ROTARY_BASE = 10_000.0  # of LLaMA 1 and 2, whose configurations do not say
_TOWER = "model.vision_tower.vision_tower.visual.trunk."
# Our names -> the published ones.
_THEIRS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(ours), theirs)
    for ours, theirs in (
        (r"tower\.(stem|stages)_", rf"{_TOWER}\1."),
        (r"projector\.", "model.mm_projector."),
        (r"extractor\.", "mask_extractor."),
        (r"language\.model\.", "model."),
        (r"language\.", ""),
    )
)
# Published tensors that no answer depends on, and for which we have no place: what follows the last stage of the vision
# tower, CLIP's other parts, and rotary frequencies, which follow from the configuration.
_NO_PART = re.compile(
    r"model\.vision_tower\.vision_tower\.(?!visual\.trunk\.(stem|stages)\.).+|.*\.rotary_emb\.inv_freq"
)
_READ_BUT_UNUSED = re.compile(r"mask_extractor\.mask_linear\..+")


@dataclass(frozen=True)
class Official:
    """The published model, loaded.

    Attributes:
        model: in evaluation mode, nothing asks for gradients.
        tokens: its tokenizer.
        unused: names of the checkpoint's tensors that no answer depends on, sorted.
        digest: of all tensors in use, as they are in the files.
    """

    model: Seagull
    tokens: RegionTokenizer
    unused: tuple[str, ...]
    digest: str


Put = Callable[[nn.Module, str, Tensor], None]
"""Puts a tensor as a weight of this name into a module."""


DeviceOf = Callable[[str], Any]
"""Name of a tensor in ``Seagull`` -> its device."""


@dataclass(frozen=True)
class Target:
    """How and where weights are kept.

    Attributes:
        language: type of the language model's floating-point weights.
        tower: type of the frozen vision tower's.
        prepare: gets the empty model, which it may change (for weights of 4 bits), and gives the device of a tensor by
            its name in ``Seagull``.
        put: replaces a weight; None takes it as it is.
    """

    language: torch.dtype = torch.bfloat16
    tower: torch.dtype = torch.float16
    prepare: Callable[[Seagull], DeviceOf] = lambda _model: lambda _name: "cpu"
    put: Put | None = None

    def type_of(self, name: str) -> torch.dtype:
        """Type of a tensor by its name in ``Seagull``; extractor and projector are small, and always in float32."""
        part = name.partition(".")[0]
        return {"language": self.language, "tower": self.tower}.get(part, torch.float32)


def load_official(folder: str | Path, *, target: Target | None = None, sizes: Sizes | None = None) -> Official:
    """Load the published checkpoint.

    Args:
        folder: with ``config.json``, the tokenizer's files and the weights: ``model.safetensors`` or
            ``pytorch_model.bin``, or their shards with the index.
        target: types and devices; None means bfloat16 (the vision tower in float16) on the CPU.
        sizes: of vision tower and extractor; None means the published ones.

    Raises:
        PocketiqaError: a file or shard is missing or corrupt; the model is of another family; a tensor is missing,
            foreign or misshapen. Names are the checkpoint's own.
    """
    folder, target, sizes = Path(folder).expanduser(), target or Target(), sizes or Sizes()
    config = _config(folder)
    shards = _shards(folder)
    model = meta_model(sizes, language_config(_language(config)))
    names = {official_name(name): name for name in model.state_dict()}
    unused = _checked(shards, names, folder)
    tokens = read_tokenizer(folder)
    _check_tokens(tokens, model, folder)
    shapes = {theirs: model.state_dict()[ours] for theirs, ours in names.items()}
    device_of = target.prepare(model)
    digests: dict[str, str] = {}
    for theirs, tensor in _stream(shards, names):
        said = misfits({theirs: shapes[theirs]}, {theirs: tensor})
        if said:
            raise PocketiqaError(f"{folder} does not fit its own configuration or SEAGULL: {said}; {_FETCH}")
        digests[theirs] = tensor_digest({theirs: tensor})
        ours = names[theirs]
        _put(model, ours, tensor.to(device_of(ours), target.type_of(ours)), target.put)
    return Official(model.requires_grad_(False).eval(), tokens, unused, digest_of(digests))


def official_name(name: str) -> str:
    """The published name of one of our tensors."""
    for ours, theirs in _THEIRS:
        if ours.match(name):
            return ours.sub(theirs, name, count=1)
    return name


def _config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise PocketiqaError(f"no folder at {folder}: {_FETCH}, and name that")
    config = read_json(folder / "config.json", what=f"configuration of the model ({_FETCH})")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != MODEL_TYPE:
        raise PocketiqaError(
            f"{folder} holds a model of the type {kind!r}, not {MODEL_TYPE!r}: give the published SEAGULL checkpoint"
        )
    return config


def _language(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``LlamaConfig`` from a config.json of any age; rotary settings were two keys, and are one now."""
    rotary = config.get("rope_parameters")
    if rotary is None:
        scaling = config.get("rope_scaling") or {}
        kind = scaling.get("rope_type") or scaling.get("type") or "default"
        rotary = {**scaling, "rope_type": kind, "rope_theta": config.get("rope_theta", _ROTARY_BASE)}
    return {key: config[key] for key in _LANGUAGE_KEYS if key in config} | {"rope_parameters": rotary}


def _shards(folder: Path) -> dict[Path, list[str]]:
    """Files of weights, each with the names of its tensors; all files are there."""
    for name in _INDEXES:
        if (folder / name).is_file():
            return _indexed(folder, folder / name)
    for name in _SINGLE:
        path = folder / name
        if path.is_file():
            return {path: _names(path)}
    entries = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    raise PocketiqaError(f"{folder} has no weights, only {entries}: {_FETCH}")


def _indexed(folder: Path, index: Path) -> dict[Path, list[str]]:
    content = read_json(index, what=f"index of weight files ({_FETCH})")
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(value, str) for value in weight_map.values()):
        raise PocketiqaError(f"{index} is no index of weight files, it has no weight_map: {_FETCH}")
    shards: dict[Path, list[str]] = {}
    for name, file in weight_map.items():
        shards.setdefault(folder / Path(file).name, []).append(name)
    missing = [path.name for path in shards if not path.is_file()]
    if missing:
        raise PocketiqaError(
            f"{folder} lacks {some(missing)} of the {len(shards)} files that {index.name} lists: {_FETCH}"
        )
    return shards


def _names(path: Path) -> list[str]:
    if path.suffix == ".safetensors":
        with _opened(path) as file:
            return list(file.keys())
    return list(tensors_only(read_torch_file(path), str(path)))  # mapped, not read


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise PocketiqaError(f"{path} is cut off or corrupt ({error}): fetch it again") from error


def _checked(shards: Mapping[Path, list[str]], names: Mapping[str, str], folder: Path) -> tuple[str, ...]:
    """Names that play no part; a name that is missing or foreign is refused, before anything is read."""
    given = [name for listed in shards.values() for name in listed]
    if not set(given) & set(names):
        raise PocketiqaError(f"{folder} is no SEAGULL checkpoint: it holds {some(given) or 'nothing'}; {_FETCH}")
    unused = {name for name in given if name not in names and _NO_PART.fullmatch(name)}
    empty = torch.empty(0)
    said = misfits(dict.fromkeys(names, empty), dict.fromkeys(set(given) - unused, empty))
    if said:
        raise PocketiqaError(f"{folder} does not fit SEAGULL: {said}; {_FETCH}")
    return tuple(sorted(unused | {name for name in given if _READ_BUT_UNUSED.fullmatch(name)}))


def _check_tokens(tokens: RegionTokenizer, model: Seagull, folder: Path) -> None:
    """The marks of a region may lie outside of the vocabulary, for they are never looked up; words may not."""
    vocabulary = model.language.config.vocab_size
    words = len(tokens.tokenizer) - len(tokens.marks)
    if words > vocabulary:
        raise PocketiqaError(
            f"the tokenizer in {folder} has {words} words, the language model {vocabulary}: they are of two models; "
            f"{_FETCH}"
        )


def _stream(shards: Mapping[Path, list[str]], names: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    """The tensors in use, one at a time, from mapped files."""
    for path, listed in shards.items():
        wanted = [name for name in listed if name in names]
        if path.suffix == ".safetensors":
            with _opened(path) as file:
                for name in wanted:
                    yield name, _read(file, name, path)
            continue
        content = tensors_only(read_torch_file(path), str(path))
        for name in wanted:
            if name not in content:
                raise PocketiqaError(_lacks(path, name))
            yield name, content.pop(name)


def _read(file: Any, name: str, path: Path) -> Tensor:
    try:
        return file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise PocketiqaError(_lacks(path, name)) from error


def _lacks(path: Path, name: str) -> str:
    return f"{path} lacks {name}, which its index promises: the download is incomplete or mixed, {_FETCH}"


def _put(model: nn.Module, name: str, tensor: Tensor, put: Put | None) -> None:
    parent, _, leaf = name.rpartition(".")
    module = model.get_submodule(parent)
    if put is not None:
        put(module, leaf, tensor)
    else:
        # The weight was on the meta device: there is nothing to copy into.
        module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
