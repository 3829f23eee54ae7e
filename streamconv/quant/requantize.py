"""The keys of a file that is quantized from another GGUF file, as ``llama-quantize`` leaves them.

All keys of the source stay, in their order; what is set anew moves to the end. Not checked: that an overridden key makes
sense to a loader.

Source: llama.cpp ``llama-quant.cpp`` and ``common/common.cpp`` ``string_parse_kv_override`` (ggml 0.25.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")


def parse_override(text: str) -> Override:
    """``KEY=TYPE:VALUE`` of ``--override-kv``, TYPE being ``int``, ``float``, ``bool`` or ``str``.

    An int is stored as the unsigned 32-bit number of its absolute value, as the reference does.

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
        number = abs(int(word)) if kind == "int" else float(word)
    except ValueError:
        raise UsageError(f'{key}: "{word}" is not {"an int" if kind == "int" else "a float"}') from None
    if kind == "float":
        with np.errstate(over="ignore"):
            return key, Value("FLOAT32", float(np.float32(number)))
    if number >= 1 << 32:
        raise UsageError(f"{key}: {word} does not fit 32 bits")
    return key, Value("UINT32", number)


def quantize_metadata(
    source: Metadata,
    filetype: FileType,
    *,
    source_types: Iterable[str] = (),
    overrides: Sequence[Override] = (),
    imatrix: Imatrix | None = None,
    imatrix_file: str = "",
    block_count: int | None = None,
) -> Metadata:
    """The keys of the quantized file.

    Parameters
    ----------
    source : keys of the input
    filetype : what is made; a copy declares what its source declares
    source_types : tensor types of the input in traversal order; looked at when a copy's source declares nothing
    overrides : set after the keys of the quantizer, in this order
    imatrix : the importance matrix that was used
    imatrix_file : how the user named it; the path that was opened, when empty
    block_count : number of blocks left after pruning; None when none was pruned
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
    for key, value in overrides:
        put(key, value)
    if imatrix is not None:
        put("quantize.imatrix.file", Value("STRING", _clipped(imatrix_file or str(imatrix.files[0]))))
        if imatrix.dataset:
            put("quantize.imatrix.dataset", Value("STRING", _clipped(imatrix.dataset)))
        put("quantize.imatrix.entries_count", Value("UINT32", imatrix.entries_count))
        if imatrix.chunks_count > 0:
            put("quantize.imatrix.chunks_count", Value("UINT32", imatrix.chunks_count))
    if block_count is not None:
        put(f"{result.get('general.architecture')}.block_count", Value("UINT32", block_count))
    return result


def _clipped(text: str) -> str:
    """``text`` cut to what the reference stores, without half a character at the end."""
    return text.encode()[:_LONGEST].decode(errors="ignore")
