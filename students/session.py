"""A model file -> its verified checksum, an ONNX Runtime session and its contract, or one clear error.

The checksum is the last entry of the model's metadata and has a fixed length: the file is valid ONNX for every reader,
and is verified here before anything parses it. Both are done on bytes, as the runtime has neither onnx nor protobuf.

A checksum is no signature, so the graph is bounded too before ONNX Runtime sees it: operators that an export writes, no
control flow, tensors as large as their bytes, the inputs and outputs of a student; and the memory of runs is limited.
"""

import math
import os
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import onnxruntime

from pseudo_labels.errors import IntegrityError, PocketiqaError, system_words
from pseudo_labels.files import sha256_bytes
from students.contract import CONTRACT_KEY, StudentContract
from students.engines import ONNX_RUNTIME, Session, check_engine, check_scores, start_engine
from students.shipped import ALL_NAMES

INPUT = "rgb"
OUTPUTS = ("score", "quality_map", "weight_map")
REGION_OUTPUTS = ("region_quality_map", "region_weight_map")
"""Further outputs of a student with a region head (``students.region_head``)."""
EMBEDDING = "embedding"
"""Further output of a student whose features are wanted too, the last one: ``students.formats.embedding``."""
# Lowest severity that ONNX Runtime prints. Its errors are raised as well, and told in our words.
_FATAL_ONLY = 4
MAX_MODEL_BYTES = 1 << 30
"""Larger model files are refused unread; the largest student, an EfficientNet-B7, has 0.26 GB."""
MAX_ENGINE_DIFFERENCE = 1e-4
"""Largest accepted difference of a score by another engine, tried when a model is opened."""
# Engines round numbers of 8 bits in another order; what is computed wrongly differs by far more.
_MAX_CONVERTED_DIFFERENCE = 0.03
MAX_NODES = 20_000
MAX_ELEMENTS = 1 << 26
"""Elements of a tensor whose shape the file states without storing it."""
_ARENA_BYTES, _ARENA_BYTES_PER_CORE = 2 << 30, 128 << 20
CHECKSUM_KEY = "pocketiqa.sha256"
_DIGEST_HEX = 64
# Field numbers of ModelProto.metadata_props and of StringStringEntryProto (onnx.proto), and protobuf's wire type.
_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
_LENGTH_DELIMITED = 2


class OpenedModel:
    """A model ready to run.

    Attributes:
        session: what runs it (``students.engines``); thread-safe.
        contract: preprocessing, scale, teachers, data and metrics of the model.
        digest: hex SHA-256 of the model, its verified checksum.
        embeds: whether the model gives an embedding.
    """

    def __init__(self, model: bytes, threads: int, name: str, engine: str):
        self._threads, self._name, self._engine = threads, name, engine
        self.digest = verify_checksum(model, name)
        check_graph(model, name)
        # An engine computes all nodes whatever is asked for: where no region is wanted, the region head is cut off.
        score_part = score_graph(model)
        session = start_session(score_part or model, threads, name)
        text = session.get_modelmeta().custom_metadata_map.get(CONTRACT_KEY)
        if text is None:
            raise PocketiqaError(f"{name} holds no student contract: export it with `pocketiqa export`")
        self.contract = StudentContract.from_json(text)
        if (self.contract.regions is not None) != (score_part is not None):
            raise PocketiqaError(
                f"{name} has maps of regions that its contract does not state, or lacks those that it states: export "
                "it with `pocketiqa export`"
            )
        self.embeds = any(one.name == EMBEDDING for one in session.get_outputs())
        self.contract.check_embedding(self.embeds, name)
        self.session: Session = session
        if engine != ONNX_RUNTIME:
            self.session = self._started(score_part or model)
            limit = MAX_ENGINE_DIFFERENCE if self.contract.conversion is None else _MAX_CONVERTED_DIFFERENCE
            check_scores(engine, self.session, session, feed=INPUT, output=OUTPUTS[0], limit=limit)
        self._model = None if score_part is None else model
        self._regions: Session | None = None if self._model else self.session
        self._lock = threading.Lock()

    def _started(self, model: bytes) -> Session:
        if self._engine == ONNX_RUNTIME:
            return start_session(model, self._threads, self._name)
        return start_engine(self._engine, model, self._threads, self._name)

    @property
    def region_session(self) -> Session:
        """What gives the maps of a region head too; the same where there is none."""
        with self._lock:
            if self._regions is None:
                assert self._model is not None, "set where the region head was cut off"
                self._regions, self._model = self._started(self._model), None
            return self._regions


def open_model(path: str | Path, threads: int = 1, engine: str = ONNX_RUNTIME) -> OpenedModel:
    """Verify the checksum, then load the model from the verified bytes.

    Args:
        path: model file.
        threads: number of threads for one image.
        engine: what runs it, see ``students.engines``.

    Raises:
        PocketiqaError: the file is missing, altered (``IntegrityError``), no model, or has no contract of this version;
            or the engine is not installed, or does not score as ONNX Runtime does.
    """
    check_engine(engine)
    # Read once: the file may be replaced between a check and a second reading.
    return OpenedModel(read_model(path), threads, str(path), engine)


def read_model(path: str | Path) -> bytes:
    """The bytes of a model file.

    Raises:
        PocketiqaError: there is no such file, it cannot be read, or has more than ``MAX_MODEL_BYTES``.
    """
    try:
        size = os.stat(path).st_size
        if size > MAX_MODEL_BYTES:
            raise PocketiqaError(
                f"the model at {path} has {size} bytes, above the limit of {MAX_MODEL_BYTES}: it is no student"
            )
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise PocketiqaError(
            f"no model at {path}: check the path, take one of the package ({', '.join(ALL_NAMES)}), or make one with "
            "`pocketiqa export`"
        ) from error
    except OSError as error:
        refused, step = system_words(error)
        raise PocketiqaError(f"the model at {path} cannot be read ({refused}): {step}") from error


def start_session(model: bytes, threads: int, name: str) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU that leaves the other cores alone.

    Args:
        model: serialised ONNX model.
        threads: number of threads of one run; runs may overlap.
        name: name of the model in an error.

    Raises:
        IntegrityError: ONNX Runtime does not accept the bytes.
        PocketiqaError: the graph is not one that an export writes, see ``check_graph``.
    """
    check_graph(model, name)
    _limit_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    # Waiting threads sleep in place of spinning: decoding needs the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Memory plans are kept for every input size ever seen, and photographs have many.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
        reason = " ".join(str(error).split())[:200]
        raise IntegrityError(f"{name} is not a model that ONNX Runtime can load: {reason}") from error
    return session


def memory_limit() -> int:
    """Bytes that the runs of all models of this process may take at a time; more cores run more images at once."""
    return _ARENA_BYTES + _ARENA_BYTES_PER_CORE * (os.cpu_count() or 1)


@cache
def _limit_memory() -> None:
    """Give ONNX Runtime one arena with a limit, once in a process; sessions that ask for it share it."""
    info = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(info, onnxruntime.OrtArenaCfg({"max_mem": memory_limit()}))


# --- what a graph may hold (field numbers and enumerations of onnx.proto)

_OPERATORS = """
    Abs Add And AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos
    CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements
    GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid
    HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    LpNormalization MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad Pow QuantizeLinear Range
    Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    Relu Reshape Resize Round ScatterND Selu Shape Sigmoid Sign Sin Size Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile Transpose Trilu Unsqueeze Where Xor
"""
OPERATORS = frozenset(_OPERATORS.split())
"""Operators that the export of an image network writes: arithmetic on tensors. None of them loops, branches, calls a
function of the file, reads a file or is random."""
# Which input of these operators says how large their output is.
_SHAPED_BY = {"ConstantOfShape": 0, "Expand": 1}
_MODEL_GRAPH, _MODEL_OPSETS, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 8, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE = 1, 5, 11, 12, 15
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE = (22, 23)
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 2, 8, 9, 13, 14
_TENSOR_TYPED = (4, 5, 7, 10, 11)
_INT64 = 7
_GRAPH_VALUE_INFO = 13
_GRAPH_PARTS = (_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO)
# Bytes of an element, by type; those that are missing here (strings, 4 bits, complex) no export writes.
_ELEMENT_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
# Type and number of dimensions of the input and of each output: float32 is 1, uint8 is 2.
_INPUT_TYPE = (2, 4)
_OUTPUT_TYPES = {"score": (1, 1), EMBEDDING: (1, 2), **dict.fromkeys((*OUTPUTS[1:], *REGION_OUTPUTS), (1, 3))}
_OUTPUT_SETS = tuple(
    OUTPUTS + regions + embedding for regions in ((), REGION_OUTPUTS) for embedding in ((), (EMBEDDING,))
)


def check_graph(model: bytes, name: str) -> None:
    """Refuse a graph that holds more than an export writes. Nothing is run, and no tensor is unpacked.

    Args:
        model: serialised ONNX model.
        name: name of the model in an error.

    Raises:
        IntegrityError: the bytes are no protobuf message with a graph.
        PocketiqaError: another operator than ``OPERATORS``, control flow or functions, tensors outside the file, larger
            than their bytes or, where their shape is stated only, than ``MAX_ELEMENTS``, or inputs or outputs that are
            not those of a student.
    """
    try:
        fields = _message(model)
        graphs = fields.get(_MODEL_GRAPH, [])
        graph = _message(graphs[-1])
        refused = _refused_model(fields) or _refused_graph(graph)
        inputs, outputs = _typed_names(graph, _GRAPH_INPUT), _typed_names(graph, _GRAPH_OUTPUT)
    except (IndexError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{name} is not a model that ONNX Runtime can load: it is no ONNX graph") from error
    if refused:
        raise PocketiqaError(f"{name} was not written by `pocketiqa export`: {refused}; fetch or export it again")
    if list(inputs) != [INPUT] or tuple(outputs) not in _OUTPUT_SETS:
        raise PocketiqaError(
            f"{name} maps {_listed(inputs)} to {_listed(outputs)}, but a student maps {[INPUT]} to {list(OUTPUTS)}: "
            "export it with `pocketiqa export`"
        )
    if inputs[INPUT] != _INPUT_TYPE or any(found != _OUTPUT_TYPES[one] for one, found in outputs.items()):
        raise PocketiqaError(
            f"{name} has inputs or outputs of other types or dimensions than a student: export it with "
            "`pocketiqa export`"
        )


def score_graph(model: bytes) -> bytes | None:
    """The model without its outputs of regions and what they alone need; None of a model that has no such outputs.

    Args:
        model: serialised ONNX model that ``check_graph`` accepts.
    """
    fields = list(_protobuf(memoryview(model)))
    at, graph = next((at, value) for at, (number, value) in enumerate(fields) if number == _MODEL_GRAPH)
    parts = [
        (number, value, _message(_view(value)) if number in _GRAPH_PARTS else {})
        for number, value in _protobuf(_view(graph))
    ]
    outputs = [_text(part.get(1, [b""])[-1]) for number, _, part in parts if number == _GRAPH_OUTPUT]
    if not set(REGION_OUTPUTS) & set(outputs):
        return None
    needed, left_out = set(OUTPUTS) | {EMBEDDING}, set(REGION_OUTPUTS)
    # Nodes are stored in an order in which each comes after those that it depends on.
    for number, _, part in reversed(parts):
        if number == _GRAPH_NODE and not needed.isdisjoint(map(_text, part.get(_NODE_OUTPUT, []))):
            needed |= set(map(_text, part.get(_NODE_INPUT, [])))
        elif number == _GRAPH_NODE:
            left_out |= set(map(_text, part.get(_NODE_OUTPUT, [])))

    def stays(number: int, part: dict[int, list]) -> bool:
        if number not in _GRAPH_PARTS:
            return True
        if number == _GRAPH_NODE:
            return left_out.isdisjoint(map(_text, part[_NODE_OUTPUT]))
        name = _text(part.get(_TENSOR_NAME if number == _GRAPH_INITIALIZER else 1, [b""])[-1])
        return name in needed if number == _GRAPH_INITIALIZER else name not in left_out

    cut = b"".join(_written(number, value) for number, value, part in parts if stays(number, part))
    return b"".join(_written(number, cut if place == at else value) for place, (number, value) in enumerate(fields))


def _listed(names: dict[str, tuple[int, int]]) -> str:
    return str([name[:40] for name in names][:8])


def _refused_model(fields: dict[int, list]) -> str:
    if fields.get(_MODEL_FUNCTIONS) or fields.get(_MODEL_TRAINING):
        return "it holds functions or training steps of its own"
    domains = {_text(_message(opset).get(1, [b""])[-1]) for opset in fields.get(_MODEL_OPSETS, [])}
    if domains - {"", "ai.onnx"}:
        return f"it asks for operators of {sorted(domains - {'', 'ai.onnx'})[0][:40]!r}"
    return ""


def _refused_graph(graph: dict[int, list]) -> str:
    nodes = graph.get(_GRAPH_NODE, [])
    if len(nodes) > MAX_NODES:
        return f"it has {len(nodes)} nodes, above the limit of {MAX_NODES}"
    if graph.get(_GRAPH_SPARSE):
        return "it holds sparse tensors"
    shapes: dict[str, int] = {}
    for tensor in map(_message, graph.get(_GRAPH_INITIALIZER, [])):
        label = _text(tensor.get(_TENSOR_NAME, [b""])[-1])
        refused = _refused_tensor(tensor, label)
        if refused:
            return refused
        shapes[label] = _product(tensor)
    for node in map(_message, nodes):
        refused = _refused_node(node, shapes)
        if refused:
            return refused
    return ""


def _refused_node(node: dict[int, list], shapes: dict[str, int]) -> str:
    operator = _text(node.get(_NODE_OPERATOR, [b""])[-1])
    if operator not in OPERATORS or _text(node.get(_NODE_DOMAIN, [b""])[-1]) not in ("", "ai.onnx"):
        return f"it holds the operator {operator[:40]!r}, which no export of a student writes"
    for attribute in map(_message, node.get(_NODE_ATTRIBUTE, [])):
        if any(attribute.get(kind) for kind in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS, *_ATTRIBUTE_SPARSE)):
            return f"a {operator} holds a graph or a sparse tensor"
        for content in attribute.get(_ATTRIBUTE_TENSOR, []) + attribute.get(_ATTRIBUTE_TENSORS, []):
            tensor = _message(content)
            refused = _refused_tensor(tensor, f"of a {operator}")
            if refused:
                return refused
            for output in node.get(_NODE_OUTPUT, []) if operator == "Constant" else []:
                shapes[_text(output)] = _product(tensor)
    inputs = node.get(_NODE_INPUT, [])
    position = _SHAPED_BY.get(operator, len(inputs))
    if position < len(inputs) and shapes.get(_text(inputs[position]), 0) > MAX_ELEMENTS:
        return f"a {operator} makes a tensor of more than {MAX_ELEMENTS} elements"
    return ""


def _refused_tensor(tensor: dict[int, list], label: str) -> str:
    if tensor.get(_TENSOR_EXTERNAL) or tensor.get(_TENSOR_LOCATION, [0])[-1]:
        return f"the tensor {label[:40]!r} lies outside the file"
    size = _ELEMENT_BYTES.get(tensor.get(_TENSOR_TYPE, [0])[-1])
    if size is None:
        return f"the tensor {label[:40]!r} has an element type that no student has"
    elements = math.prod(_numbers(tensor.get(_TENSOR_DIMS, [])))
    # Numbers that are not raw take a byte or more each.
    held = sum(len(raw) // size for raw in tensor.get(_TENSOR_RAW, []))
    for kind in _TENSOR_TYPED:
        held += sum(len(packed) if isinstance(packed, memoryview) else 1 for packed in tensor.get(kind, []))
    if elements > held:
        return f"the tensor {label[:40]!r} claims {elements} elements, but the file holds at most {held} of them"
    return ""


def _product(tensor: dict[int, list]) -> int:
    """The product of a small tensor of integers, taken for a shape; 0 of any other."""
    if tensor.get(_TENSOR_TYPE, [0])[-1] != _INT64:
        return 0
    raw = b"".join(tensor.get(_TENSOR_RAW, []))
    values = [int.from_bytes(raw[at : at + 8], "little", signed=True) for at in range(0, min(len(raw), 64), 8)]
    return math.prod(values or _numbers(tensor.get(7, []))[:8])


def _typed_names(graph: dict[int, list], kind: int) -> dict[str, tuple[int, int]]:
    """Name -> element type and number of dimensions of the inputs or outputs, without weights that are listed there."""
    weights = {_text(_message(item).get(_TENSOR_NAME, [b""])[-1]) for item in graph.get(_GRAPH_INITIALIZER, [])}
    named = {}
    for item in map(_message, graph.get(kind, [])):
        label = _text(item.get(1, [b""])[-1])
        tensor = _message(_message(item.get(2, [b""])[-1]).get(1, [b""])[-1])
        dimensions = _message(tensor.get(2, [b""])[-1]).get(1, [])
        if label not in weights:
            named[label] = (tensor.get(1, [0])[-1], len(dimensions))
    return named


def _text(content: bytes | memoryview) -> str:
    return bytes(content).decode()


def _message(data: bytes | memoryview) -> dict[int, list]:
    """The fields of a protobuf message by number: integers, and views of the bytes of everything else."""
    fields: dict[int, list] = {}
    for number, value in _protobuf(memoryview(data)):
        fields.setdefault(number, []).append(value)
    return fields


def _protobuf(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        length, at = _varint(data, at) if kind == _LENGTH_DELIMITED else ({1: 8, 5: 4}[kind], at)
        if at + length > len(data):
            raise ValueError("a field ends behind its message")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")


def _numbers(values: list) -> list[int]:
    """Integers that are stored one by one or packed."""
    numbers: list[int] = []
    for value in values:
        at = 0
        while isinstance(value, memoryview) and at < len(value):
            number, at = _varint(value, at)
            numbers.append(number)
        numbers += [] if isinstance(value, memoryview) else [value]
    return numbers


def _field(number: int, content: bytes | memoryview) -> bytes:
    """One length-delimited protobuf field."""
    return _as_varint(number << 3 | _LENGTH_DELIMITED) + _as_varint(len(content)) + bytes(content)


def _written(number: int, value: int | bytes | memoryview) -> bytes:
    """A field that ``_protobuf`` read; of the models that are accepted, none at the top has a fixed length."""
    return _as_varint(number << 3) + _as_varint(value) if isinstance(value, int) else _field(number, value)


def _as_varint(value: int) -> bytes:
    digits = []
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message is needed")
    return value


def _entry(digest: str) -> bytes:
    pair = _field(_KEY, CHECKSUM_KEY.encode()) + _field(_VALUE, digest.encode())
    return _field(_METADATA_PROPS, pair)


CHECKSUM_BYTES = len(_entry("0" * _DIGEST_HEX))


def with_checksum(model: bytes) -> bytes:
    """Serialised model -> the same with its checksum at the end.

    Appending bytes suffices: protobuf joins the entries of a repeated field, wherever in the message they are.
    """
    return model + _entry(sha256_bytes(model))


def verify_checksum(data: bytes, name: str) -> str:
    """Verify the checksum of a model file.

    Args:
        data: content of the whole file.
        name: name of the file in an error.

    Returns:
        The hex SHA-256 of the model, which identifies it.

    Raises:
        IntegrityError: there is no checksum at the end, or it is not that of the bytes before it.
    """
    model, tail = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    digest = tail[-_DIGEST_HEX:]
    if len(data) <= CHECKSUM_BYTES or tail[:-_DIGEST_HEX] != _entry("0" * _DIGEST_HEX)[:-_DIGEST_HEX]:
        raise IntegrityError(
            f"{name} does not end with a pocketiqa checksum: it was cut, appended to or not exported by pocketiqa; "
            "fetch it again or export it with `pocketiqa export`"
        )
    actual = sha256_bytes(model)
    if digest != actual.encode():
        raise IntegrityError(
            f"{name} was altered: its checksum is {digest[:12].decode('ascii', 'replace')}..., that of its content is "
            f"{actual[:12]}...; fetch it again or export it with `pocketiqa export`"
        )
    return actual
