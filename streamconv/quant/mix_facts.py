"""What the type rules look at and what they answer: facts of tensors and of the model, options, choices.

Source: the options of ``llama-quantize`` (ggml 0.25.3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UsageError
from ..metadata import Metadata
from .filetypes import parse_tensor_type
from .types import TensorType

#: types whose values are read as they are; everything else with a decoder counts as quantized
FLOATS = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True)
class TensorFacts:
    """What the rules may know of a tensor.

    Attributes
    ----------
    name : GGUF name
    shape : slowest dimension first
    source_type : type the values have now: a ggml type name, which safetensors' ``F32``, ``F16`` and ``BF16`` also are
    """

    name: str
    shape: tuple[int, ...]
    source_type: str

    @property
    def n_cols(self) -> int:
        """Length of a row."""
        return self.shape[-1] if self.shape else 1


@dataclass(frozen=True)
class ModelFacts:
    """What the rules may know of a model.

    Attributes
    ----------
    architecture : ``general.architecture``
    n_layer : blocks, before pruning
    n_head, n_head_kv : of the first block
    n_expert : 0 when dense
    """

    architecture: str
    n_layer: int
    n_head: int = 0
    n_head_kv: int = 0
    n_expert: int = 0

    @classmethod
    def from_metadata(cls, metadata: Metadata) -> ModelFacts:
        """The facts as the keys of a GGUF file state them."""
        arch = str(metadata.get("general.architecture", ""))

        def number(key: str, default: int = 0) -> int:
            value = metadata.get(f"{arch}.{key}", default)
            if not isinstance(value, (int, float)):  # one number per block
                value = value[0] if len(value) else default
            return int(value)

        heads = number("attention.head_count")
        return cls(arch, number("block_count"), heads, number("attention.head_count_kv", heads), number("expert_count"))


@dataclass(frozen=True)
class MixOptions:
    """The options of ``llama-quantize`` that change types.

    Attributes
    ----------
    pure : every matrix gets the default type
    leave_output_tensor : ``output.weight`` stays as it is
    output_tensor_type, token_embedding_type : type of that tensor, whatever its shape
    tensor_types : (pattern searched in the name, type); the first that is found wins
    prune_layers : blocks to leave out
    allow_requantize : quantized tensors may be decoded and quantized again
    """

    pure: bool = False
    leave_output_tensor: bool = False
    output_tensor_type: TensorType | None = None
    token_embedding_type: TensorType | None = None
    tensor_types: tuple[tuple[str, TensorType], ...] = ()
    prune_layers: tuple[int, ...] = ()
    allow_requantize: bool = False


@dataclass(frozen=True)
class Choice:
    """The decision for one tensor.

    Attributes
    ----------
    name : in the output; differs from ``source`` where blocks were pruned
    type : in the output
    reason : a few words for a plan listing
    source : name in the input, by which its importance weights are found too
    """

    name: str
    type: TensorType
    reason: str
    source: str


def parse_tensor_rule(text: str) -> tuple[str, TensorType]:
    """``REGEX=TYPE`` of ``--tensor-type``; the pattern is lower-cased, as tensor names are.

    Raises
    ------
    UsageError : no pattern, not a regular expression, or no such type
    """
    pattern, sign, name = text.rpartition("=")
    if not sign or not pattern:
        raise UsageError(f'"{text}" is not a tensor type rule', "write PATTERN=TYPE, for example attn_v=Q8_0")
    compiled(pattern.lower())
    return pattern.lower(), parse_tensor_type(name)


def parse_tensor_rules(text: str) -> list[tuple[str, TensorType]]:
    """The rules of a ``--tensor-type-file``: ``REGEX=TYPE`` items separated by white space."""
    return [parse_tensor_rule(item) for item in text.split()]


def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression of a rule (UsageError when it is invalid)."""
    try:
        return re.compile(pattern)
    except re.error as e:
        raise UsageError(f'"{pattern}" is not a regular expression: {e}') from None
