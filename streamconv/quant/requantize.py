"""The keys of a file that is quantized from another GGUF file, as ``llama-quantize`` leaves them.

All keys of the source stay, in their order; what is overridden moves to the end. Not checked: that an overridden key makes
sense to a loader.

Source: llama.cpp ``llama-quant.cpp`` and ``common/common.cpp`` ``string_parse_kv_override`` (ggml 0.25.3).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from ..errors import UsageError
from ..metadata import Metadata, Value
from .filetypes import COPY, FileType, guess_file_type
from .imatrix import Imatrix

#: one ``--override-kv``: key and typed value
Override = tuple[str, Value]

#: longest key and string the reference keeps, in bytes of UTF-8
_LONGEST = 127
_ALIGNMENT = 32
#: word of an override -> types of keys that it can stand for
_WORDS = {
    "bool": ("BOOL",), "str": ("STRING",), "float": ("FLOAT32", "FLOAT64"),
    "int": ("UINT8", "INT8", "UINT16", "INT16", "UINT32", "INT32", "UINT64", "INT64"),
}  # fmt: skip
_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")


def parse_override(text: str) -> Override:
    """``KEY=TYPE:VALUE`` of ``--override-kv``, TYPE being ``int``, ``float``, ``bool`` or ``str``.

    How a number is stored depends on the key, see ``quantize_metadata``; until then an int is an INT64.

    Raises
    ------
    UsageError : the text has another form, or the value does not fit

    >>> parse_override("llama.rope.freq_base=float:5e5")
    ('llama.rope.freq_base', Value(type='FLOAT32', value=500000.0, elem=''))
    """
    key, sign, typed = text.partition("=")
    kind, colon, word = typed.partition(":")
    if not (sign and colon and key):
        raise UsageError(f'"{text}" is not an override', "write KEY=TYPE:VALUE, TYPE being int, float, bool or str")
    if len(key.encode()) > _LONGEST:
        raise UsageError(f"the key {key} is longer than {_LONGEST} bytes")
    if key == "general.alignment":
        raise UsageError(f"general.alignment cannot be overridden: tensors are aligned to {_ALIGNMENT} bytes")
    if kind == "str":
        if len(word.encode()) > _LONGEST:
            raise UsageError(f"the value of {key} is longer than {_LONGEST} bytes")
        return key, Value("STRING", word)
    if kind == "bool":
        if word not in ("true", "false"):
            raise UsageError(f'{key}: "{word}" is not true or false')
        return key, Value("BOOL", word == "true")
    if kind not in ("int", "float"):
        raise UsageError(f'{key}: unknown type "{kind}"', "types are int, float, bool and str")
    try:
        number = int(word) if kind == "int" else float(word)
    except ValueError:
        raise UsageError(f'{key}: "{word}" is not {"an int" if kind == "int" else "a float"}') from None
    if kind == "float":
        with np.errstate(over="ignore"):
            rounded = float(np.float32(number))
        if not math.isfinite(rounded):
            raise UsageError(f"{key}: {word} is not a number that fits 32 bits")
        return key, Value("FLOAT32", rounded)
    if abs(number) >= 1 << 32:
        raise UsageError(f"{key}: {word} does not fit 32 bits")
    return key, Value("INT64", number)


def _settled(key: str, value: Value, stored: Value | None, n_blocks: object) -> Value:
    """``value`` of an override in the type that the key has, as loaders read a key with one type.

    Without such a key an int becomes the unsigned number of its absolute value, as the reference has it. One number may stand
    for a list of one for every block.

    Raises
    ------
    UsageError : a value of that type cannot stand for the key's
    """
    is_number, number = value.type in ("INT64", "FLOAT32"), value.value
    if stored is None:
        return Value("UINT32", abs(number)) if value.type == "INT64" else value
    kind = stored.type
    if kind == "ARRAY" and len(stored.value) == n_blocks and stored.elem in ("UINT32", "INT32", "FLOAT32"):
        kind = "FLOAT32" if stored.elem == "FLOAT32" else "UINT32"
    if kind == value.type:
        return value
    if kind in ("FLOAT32", "FLOAT64") and is_number:
        return Value(kind, float(np.float32(number)) if kind == "FLOAT32" else float(number))
    if kind == "BOOL" and value.type == "INT64" and number in (0, 1):
        return Value(kind, bool(number))
    if "INT" in kind and is_number and number == int(number):
        bits = np.iinfo(kind.lower())
        if bits.min <= number <= bits.max:
            return Value(kind, int(number))
        raise UsageError(f"--override-kv {key}: {number} does not fit {kind}, the type of this key")
    said = {"INT64": "an int", "FLOAT32": "a float", "BOOL": "a bool", "STRING": "a str"}[value.type]
    fitting = next((word for word, kinds in _WORDS.items() if kind in kinds), "")
    raise UsageError(
        f"--override-kv {key}: the key is stored as {kind}, and {said} ({number}) cannot replace it",
        f"Write {key}={fitting}:VALUE." if fitting else "Lists cannot be overridden.",
    )


def quantize_metadata(
    source: Metadata,
    filetype: FileType,
    *,
    source_types: Iterable[str] = (),
    overrides: Sequence[Override] = (),
    imatrix: Imatrix | None = None,
    imatrix_file: str = "",
    pruned: Collection[int] = (),
) -> Metadata:
    """The keys of the quantized file.

    Parameters
    ----------
    source : keys of the input
    filetype : what is made; a copy declares what its source declares
    source_types : tensor types of the input in traversal order; looked at when a copy's source declares nothing
    overrides : set after the keys of the quantizer, in this order, each in the type of the key that is there
    imatrix : the importance matrix that was used
    imatrix_file : how the user named it; the path that was opened, when empty
    pruned : numbers of the blocks that are left out; what is said of each block is said of those that are left

    Raises
    ------
    UsageError : an override has a type that cannot stand for that of its key
    """
    result = Metadata(dict(source.values))

    def put(key: str, value: Value) -> None:
        # written straight into the dictionary: an override may be an empty string, which ``add`` would leave out
        result.remove(key)
        result.values[key] = value

    if filetype is COPY:
        declared = source.get("general.file_type")
        number = guess_file_type(source_types) if declared is None else int(declared)
    else:
        assert filetype.number is not None  # auto has been resolved
        number = filetype.number
    put("general.quantization_version", Value("UINT32", 2))
    put("general.file_type", Value("UINT32", number))
    for key in _SPLIT_KEYS:
        result.remove(key)
    # The reference copies this key but always pads to 32, which breaks files that say otherwise.
    if result.get("general.alignment", _ALIGNMENT) != _ALIGNMENT:
        result.remove("general.alignment")
    n_blocks = source.get(f"{source.get('general.architecture')}.block_count")
    for key, value in overrides:
        put(key, _settled(key, value, result.values.get(key), n_blocks))
    if imatrix is not None:
        put("quantize.imatrix.file", Value("STRING", _clipped(imatrix_file or str(imatrix.files[0]))))
        if imatrix.dataset:
            put("quantize.imatrix.dataset", Value("STRING", _clipped(imatrix.dataset)))
        put("quantize.imatrix.entries_count", Value("UINT32", imatrix.entries_count))
        if imatrix.chunks_count > 0:
            put("quantize.imatrix.chunks_count", Value("UINT32", imatrix.chunks_count))
    if pruned:
        count = f"{result.get('general.architecture')}.block_count"
        put(count, Value("UINT32", n_blocks - len(set(pruned))))
        _forget_blocks(result, set(pruned), n_blocks)
    return result


def _forget_blocks(m: Metadata, pruned: Collection[int], n_blocks: int) -> None:
    """Say of the blocks that are left what was said of ``n_blocks``; the reference does not, and runtimes refuse its lists."""
    arch = m.get("general.architecture")
    for key, value in m.values.items():
        is_listed = key.startswith((f"{arch}.", "xielu.")) and not key.endswith("rope.dimension_sections")
        if is_listed and value.type == "ARRAY" and len(value.value) == n_blocks:
            left = [each for block, each in enumerate(value.value) if block not in pruned]
            m.values[key] = Value("ARRAY", left, value.elem)
        elif key == f"{arch}.leading_dense_block_count":
            n_dense = sum(block not in pruned for block in range(value.value))
            m.values[key] = Value(value.type, n_dense)


def _clipped(text: str) -> str:
    """``text`` cut to what the reference stores, without half a character at the end."""
    return text.encode()[:_LONGEST].decode(errors="ignore")
