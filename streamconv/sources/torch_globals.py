"""What a torch pickle may name, and what each of it means here.

The list ``GLOBALS`` is the whole of it: dtypes and classes of storages and tensors, which are tags to us, and a handful of
functions, for each of which something of ours is called that makes a record or a plain container. It is what torch's own reader
allows (``weights_only``), without tensors that are sparse, quantized, nested or of other classes.

Source: torch/_utils.py, torch/_tensor.py and torch/_weights_only_unpickler.py for names and arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, cast

from .naming import shown

#: as many as numpy has
MAX_DIMENSIONS = 64


class Machine(Protocol):
    """What the functions need of the machine that runs the pickle."""

    def fail(self, what: str, hint: str = "") -> NoReturn:
        """BadInput at the current opcode."""

    def charge(self, n_bytes: int) -> None:
        """Count what an object takes."""

    def insert(self, target: dict[str, Any], items: list[Any]) -> None:
        """Put keys and values, one after the other in ``items``, into ``target``."""

    def position(self) -> int:
        """Byte of the file that the current opcode is at."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A dtype or the class of a storage, which to us is a name.

    Attributes
    ----------
    name : as Python spells it, ``torch.float16`` or ``torch.HalfStorage``
    dtype : as safetensors spells it; "" for a storage of bytes
    """

    name: str
    dtype: str
    is_storage: bool


@dataclass(frozen=True, slots=True)
class TensorClass:
    """A class of tensors, which to us is a name: it says nothing of the values."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers somewhere in the file.

    Attributes
    ----------
    key : what the container files it under
    dtype : as safetensors spells it; "" when the tensors say what it holds and ``numel`` counts bytes
    numel : numbers in the whole storage
    start, length : the part of it that is meant; all of it but for views in old files
    """

    key: str
    dtype: str
    numel: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage, as the pickle describes it and not yet checked against anything.

    Attributes
    ----------
    dtype : as safetensors spells it
    offset, stride : in numbers, not bytes
    at : byte of the file where it is described
    """

    storage: Storage
    dtype: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Callee:
    """A global that may be called, and what is done instead.

    Attributes
    ----------
    makes_tensor : whether what it makes is a ``Tensor``
    """

    name: str
    call: Callable[[Machine, tuple[Any, ...]], Any]
    makes_tensor: bool = False


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def storage_of(machine: Machine, found: Any) -> Storage:
    """What the persistent id ``("storage", class, key, location, numel[, view])`` stands for.

    The sixth item is of old files: None, or ``(view key, start, length)``.
    """
    if type(found) is not tuple or len(found) not in (5, 6) or found[0] != "storage":
        machine.fail("the pickle refers to something that is not a storage")
    _, tag, key, _, numel, view = (*found, None)[:6]
    if type(tag) is not Tag or not tag.is_storage:
        machine.fail("the pickle describes a storage of no known class")
    if type(key) is not str:
        machine.fail("the pickle describes a storage whose key is not text")
    if not _is_size(numel):
        machine.fail(f"storage {shown(key)}: its size is not a size")
    start, length = 0, numel
    if view is not None:
        if type(view) is not tuple or len(view) != 3 or not _is_size(view[1]) or not _is_size(view[2]):
            machine.fail(f"storage {shown(key)}: its view is damaged")
        start, length = view[1:]
        if start + length > numel:
            machine.fail(f"storage {shown(key)}: a view ends at {start + length} of {numel} numbers, out of bounds")
    machine.charge(350)
    return Storage(key, tag.dtype, numel, start, length)


# ---- what the allowed functions do instead


def _rebuild_tensor(machine: Machine, arguments: tuple[Any, ...]) -> Tensor:
    """``(storage, offset, size, stride, requires_grad, hooks[, metadata])``."""
    if len(arguments) not in (6, 7):
        machine.fail(f"a tensor has {len(arguments)} arguments")
    return _tensor(machine, arguments, None, arguments[6:])


def _rebuild_typed_tensor(machine: Machine, arguments: tuple[Any, ...]) -> Tensor:
    """``(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])``."""
    if len(arguments) not in (7, 8):
        machine.fail(f"a tensor has {len(arguments)} arguments")
    return _tensor(machine, arguments, arguments[6], arguments[7:])


def _tensor(machine: Machine, arguments: tuple[Any, ...], tag: Any, metadata: tuple[Any, ...]) -> Tensor:
    storage, offset, size, stride = arguments[:4]
    if metadata not in ((), (None,), ({},)):
        # Bits that change the values: the numbers are those of the storage negated or conjugated.
        machine.fail("a tensor has metadata (neg, conj), which is not read")
    if type(storage) is not Storage:
        machine.fail("a tensor has no storage")
    if tag is not None and (type(tag) is not Tag or tag.is_storage):
        machine.fail("a tensor has no known dtype")
    dtype = storage.dtype if tag is None else tag.dtype
    if not dtype:
        machine.fail(f"storage {shown(storage.key)} is untyped and its tensor has no dtype")
    if not _is_size(offset):
        machine.fail("a tensor's offset in its storage is not a size")
    for what, numbers in (("size", size), ("stride", stride)):
        # Counted first: a tuple in the memo can be long, and be that of many tensors.
        if type(numbers) is tuple and len(numbers) > MAX_DIMENSIONS:
            machine.fail(f"a tensor's {what} has {len(numbers)} dimensions, more than {MAX_DIMENSIONS}")
        if type(numbers) is not tuple or not all(map(_is_size, numbers)):
            machine.fail(f"a tensor's {what} is not a tuple of non-negative integers")
    machine.charge(1000 + 64 * (len(size) + len(stride)))  # for what is checked later, too
    return Tensor(storage, dtype, offset, size, stride, machine.position())


def _rebuild_parameter(machine: Machine, arguments: tuple[Any, ...]) -> Tensor:
    """``(tensor, requires_grad, hooks)``."""
    if len(arguments) != 3 or type(arguments[0]) is not Tensor:
        machine.fail("a parameter has no tensor")
    return arguments[0]


def _rebuild_parameter_with_state(machine: Machine, arguments: tuple[Any, ...]) -> Tensor:
    """``(tensor, requires_grad, hooks, state)``: a parameter with attributes of Python's, which say nothing of the values."""
    if len(arguments) != 4:
        machine.fail(f"a parameter with attributes has {len(arguments)} arguments")
    return _rebuild_parameter(machine, arguments[:3])


def _rebuild_from_type(machine: Machine, arguments: tuple[Any, ...]) -> Tensor:
    """``(function, class, arguments, state)``: a tensor with attributes of Python's, or of torch's own class of parameters."""
    if len(arguments) != 4 or type(arguments[2]) is not tuple:
        machine.fail("a tensor with attributes is not made of a function, a class, arguments and a state")
    function, kind = arguments[:2]
    if type(function) is not Callee or not function.makes_tensor or type(kind) is not TensorClass:
        machine.fail(
            "refused: a tensor with attributes is built by something other than a function for tensors, or is of an unknown class"
        )
    machine.charge(200)
    return cast("Tensor", function.call(machine, arguments[2]))


def _plain_set(machine: Machine, arguments: tuple[Any, ...]) -> list[Any]:
    """``()`` or ``(items,)``: no weight is in a set, so it stays the list that it is made of."""
    if len(arguments) > 1 or not all(type(items) in (list, tuple) for items in arguments):
        machine.fail("a set is built from something that is not a list")
    items = list(arguments[0]) if arguments else []
    machine.charge(64 + 16 * len(items))
    return items


def _counter(machine: Machine, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """``({key: number},)``."""
    if len(arguments) != 1 or type(arguments[0]) is not dict:
        machine.fail("a Counter is built from something that is not a dictionary")
    return arguments[0]


def _byte_array(machine: Machine, arguments: tuple[Any, ...]) -> bytes:
    """``(bytes,)``, or ``(text, "latin-1")`` as protocol 2 has them."""
    if len(arguments) == 2 and arguments[1] == "latin-1":
        return _encode(machine, (arguments[0], "latin1"))
    if arguments and (len(arguments) != 1 or type(arguments[0]) is not bytes):
        machine.fail("a bytearray is built from things that are not bytes")
    return arguments[0] if arguments else b""


def _numbers(machine: Machine, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The two parts of a complex number, or the name and number of a device."""
    if len(arguments) not in (1, 2) or any(type(part) not in (int, float, str) for part in arguments):
        machine.fail("a complex number or a device is built from something else")
    return arguments


def _ordered_dict(machine: Machine, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """``()``, or ``([[key, value], …])`` as Python 2 wrote."""
    machine.charge(64)
    made: dict[str, Any] = {}
    if arguments:
        pairs = arguments[0]
        if len(arguments) != 1 or type(pairs) is not list:
            machine.fail("an OrderedDict is built from something that is not a list")
        if not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
            machine.fail("an OrderedDict is built from things that are not pairs")
        machine.insert(made, [item for pair in pairs for item in pair])
    return made


def _size(machine: Machine, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(arguments) != 1 or type(arguments[0]) is not tuple:
        machine.fail("a torch.Size is built from something that is not a tuple")
    return arguments[0]


def _encode(machine: Machine, arguments: tuple[Any, ...]) -> bytes:
    """``(text, "latin1")``: how protocol 2 writes bytes."""
    if len(arguments) != 2 or type(arguments[0]) is not str or arguments[1] != "latin1":
        machine.fail("refused: _codecs.encode is allowed for bytes in latin1 only")
    machine.charge(64 + len(arguments[0]))
    try:
        return arguments[0].encode("latin1")
    except UnicodeEncodeError:
        machine.fail("bytes written as text hold a character beyond latin1")


#: torch's spelling -> safetensors' spelling
DTYPES = {
    "float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip
_STORAGES = {
    "FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16", "LongStorage": "I64",
    "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL",
    "ComplexFloatStorage": "C64",
}  # fmt: skip
_BUILTINS = ("builtins", "__builtin__")
#: the whole list of what a pickle may name
GLOBALS: dict[tuple[str, str], Tag | TensorClass | Callee] = {
    **{("torch", name): Tag(f"torch.{name}", dtype, False) for name, dtype in DTYPES.items()},
    **{("torch", name): Tag(f"torch.{name}", dtype, True) for name, dtype in _STORAGES.items()},
    ("torch.storage", "UntypedStorage"): Tag("torch.storage.UntypedStorage", "", True),
    ("torch", "Tensor"): TensorClass("torch.Tensor"),
    ("torch.nn.parameter", "Parameter"): TensorClass("torch.nn.parameter.Parameter"),
    ("torch._utils", "_rebuild_tensor_v2"): Callee("_rebuild_tensor_v2", _rebuild_tensor, True),
    ("torch._utils", "_rebuild_tensor_v3"): Callee("_rebuild_tensor_v3", _rebuild_typed_tensor, True),
    ("torch._utils", "_rebuild_parameter"): Callee("_rebuild_parameter", _rebuild_parameter, True),
    ("torch._utils", "_rebuild_parameter_with_state"): Callee(
        "_rebuild_parameter_with_state", _rebuild_parameter_with_state, True
    ),
    ("torch._tensor", "_rebuild_from_type_v2"): Callee("_rebuild_from_type_v2", _rebuild_from_type),
    ("collections", "OrderedDict"): Callee("OrderedDict", _ordered_dict),
    ("collections", "Counter"): Callee("Counter", _counter),
    # by the names of Python 3, and by those of Python 2, which older protocols keep
    **{(module, "set"): Callee("set", _plain_set) for module in _BUILTINS},
    **{(module, "bytearray"): Callee("bytearray", _byte_array) for module in _BUILTINS},
    **{(module, "complex"): Callee("complex", _numbers) for module in _BUILTINS},
    ("torch", "device"): Callee("device", _numbers),
    ("torch", "Size"): Callee("Size", _size),
    ("_codecs", "encode"): Callee("encode", _encode),
}
