"""Choose the type of every tensor the way ``convert_hf_to_gguf.py`` does: one type for all, with fixed exceptions.

This is the rule behind ``--type F32 F16 BF16 Q8_0 TQ1_0 TQ2_0 auto`` for a checkpoint, and the first half of every other
file type: what the mixes of ``mix.py`` keep, they keep in the type given here.

Source: llama.cpp ``convert_hf_to_gguf.py`` ``TextModel.prepare_tensors`` and gguf-py ``GGUFWriter``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from .filetypes import AUTO, FILE_TYPES, FileType
from .mix_facts import Choice, TensorFacts
from .types import TYPES, TensorType

#: file types the converter writes itself
CONVERTER_TYPES = ("F32", "F16", "BF16", "Q8_0", "TQ1_0", "TQ2_0")

#: matrices that are F32 in every file; block numbers are left out
_F32_STEMS = re.compile(
    r"blk\.\d+\.("
    r"ffn_gate_inp|ffn_gate_inp_shexp|ssm_conv1d(_[qkv])?|shortconv\.conv"
    r"|time_mix_(first|w1|w2|decay_w1|decay_w2|lerp_fused)"
    r"|altup_(correct|predict)_coef|indexer\.proj)"
    r"|(v\.|a\.)?position_embd|token_types|posnet\.\d+\.norm[12]"
)
#: instead of the name of a type: a matrix that is of the file's type although those of its name are not
AS_FILE = "as the file"
#: the same: F16 in a file of that type, F32 in all others
F16_IN_F16 = "F16 in F16 files, else F32"
#: matrices that are F16 in ternary files
_TERNARY_F16_STEMS = re.compile(r"token_embd|per_layer_token_embd|output|blk\.\d+\.(altup_router|laurel_[lr])")
_WEIGHT_SUFFIXES = (".weight", ".lora_a", ".lora_b")
#: block types that checkpoints hold and that are repacked, never decoded
_REPACKED = frozenset({"MXFP4", "NVFP4"})
#: types of what is no weight
_NUMBERS = frozenset({"I32", "I64"})


def auto_file_type(tensors: Iterable[TensorFacts]) -> FileType:
    """The file type ``auto`` stands for: that of the first matrix in BF16 or F16, else F16.

    Parameters
    ----------
    tensors : of the checkpoint, in reading order, with the types they are stored in
    """
    return FILE_TYPES[half_type(tensors) or "F16"]


def half_type(tensors: Iterable[TensorFacts]) -> str:
    """The 16-bit type of the first matrix that is stored in one, empty where none is."""
    return next((t.source_type for t in tensors if len(t.shape) > 1 and t.source_type in ("BF16", "F16")), "")


def converter_types(
    tensors: Sequence[TensorFacts], filetype: FileType, forced: Mapping[str, str] = MappingProxyType({})
) -> list[Choice]:
    """The type of every output tensor, in the order given.

    Parameters
    ----------
    tensors : output names and shapes; ``source_type`` is the stored type, looked at by ``auto`` and for repacked blocks
    filetype : one of ``CONVERTER_TYPES``, or ``auto``
    forced : name -> tensor type name, what a model family prescribes, ``AS_FILE`` or ``F16_IN_F16``; vectors and norms stay F32,
        unless they are whole numbers

    Raises
    ------
    ValueError : the converter does not write this file type
    """
    if filetype is AUTO:
        filetype = auto_file_type(tensors)
    if filetype.name not in CONVERTER_TYPES or filetype.default is None:
        raise ValueError(f"{filetype.name} is made by a mix, not by the converter")
    return [Choice(t.name, *_choose(t, filetype, filetype.default, forced), t.name) for t in tensors]


def prescribed(said: str, filetype: FileType) -> TensorType:
    """The type that ``said``, what a model family prescribes, means in a file of type ``filetype``."""
    if said == F16_IN_F16:
        return TYPES["F16" if filetype.name == "F16" else "F32"]
    return TYPES[said]


def _choose(
    t: TensorFacts, filetype: FileType, default: TensorType, forced: Mapping[str, str]
) -> tuple[TensorType, str]:
    stem, _, suffix = t.name.rpartition(".")
    if t.source_type in _REPACKED:
        return TYPES[t.source_type], "kept as stored"
    if forced.get(t.name) in _NUMBERS:
        return TYPES[forced[t.name]], "numbers, kept as they are"
    if len(t.shape) <= 1:
        return TYPES["F32"], "a vector, always F32"
    if t.name.endswith("_norm.weight"):
        return TYPES["F32"], "a norm, always F32"
    as_file = forced.get(t.name) == AS_FILE
    if t.name in forced and not as_file:
        return prescribed(forced[t.name], filetype), "fixed by the model family"
    if not as_file and _F32_STEMS.fullmatch(stem):
        return TYPES["F32"], "always F32"
    if f".{suffix}" not in _WEIGHT_SUFFIXES:
        return TYPES["F32"], "not a weight, always F32"
    if filetype.name in ("TQ1_0", "TQ2_0") and _TERNARY_F16_STEMS.fullmatch(stem):
        return TYPES["F16"], f"F16 in {filetype.name}"
    if t.n_cols % default.block_size:
        words = f"{default.name}: columns {t.n_cols} not a multiple of {default.block_size} -> F16"
        return TYPES["F16"], words
    return default, f"default of {filetype.name}"
