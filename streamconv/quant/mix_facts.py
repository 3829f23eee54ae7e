"""What the type rules look at and what they answer: facts of tensors and of the model, options, choices; the order of tensors.

Source: the options of ``llama-quantize``, llama.cpp ``llama-model-loader.h`` ``weight_name_comparer`` and ``llama-quant.cpp``
``remap_layer`` (ggml 0.25.3).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ..errors import UsageError
from ..metadata import Metadata
from .filetypes import parse_tensor_type
from .types import TensorType

#: types whose values are read as they are; everything else with a decoder counts as quantized
FLOATS = frozenset({"F32", "F16", "BF16"})
_BLOCK = re.compile(r"blk\.(\d+)\.")


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
        n_loops = number("num_loops", 1)  # a loader counts a block as often as it is run through
        return cls(
            arch,
            number("block_count") * n_loops,
            heads,
            number("attention.head_count_kv", heads),
            number("expert_count"),
        )


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

    @property
    def decide(self) -> bool:
        """Whether they give any tensor a type of its own."""
        given = self.tensor_types or self.output_tensor_type or self.token_embedding_type
        return bool(given or self.leave_output_tensor or self.pure)


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


def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression of a rule (UsageError when it is invalid)."""
    try:
        return re.compile(pattern)
    except re.error as e:
        raise UsageError(f'"{pattern}" is not a regular expression: {e}') from None


def block_number(name: str) -> int:
    """The block a tensor belongs to; -1 when its name does not begin with one."""
    found = _BLOCK.match(name)
    return int(found[1]) if found else -1


def traversal_order(names: Iterable[str]) -> list[str]:
    """``names`` as the reference walks and writes them: by block, those outside blocks first, then bytewise.

    The order matters beyond layout: the mixes count tensors as they go by.

    >>> traversal_order(["blk.10.b", "blk.2.b", "blk.2.a", "output.weight"])
    ['output.weight', 'blk.2.a', 'blk.2.b', 'blk.10.b']
    """
    return sorted(names, key=lambda name: (block_number(name), name.encode()))


def pruned_names(names: Iterable[str], prune_layers: Collection[int]) -> tuple[dict[str, str], int]:
    """Renumber the blocks that remain when ``prune_layers`` are left out.

    Blocks below the first pruned one keep their number, the later ones follow without gaps.

    Returns
    -------
    input name -> output name of every tensor that remains, in the order of ``names``; and the number of blocks left

    Raises
    ------
    UsageError : a block to prune does not exist, or none would remain
    """
    blocks = {name: int(found[1]) for name in names if (found := _BLOCK.search(name))}
    present = set(blocks.values())
    if not prune_layers:
        return {name: name for name in names}, 1 + max(present, default=-1)
    if missing := sorted(set(prune_layers) - present):
        raise UsageError(f"cannot prune layer {missing[0]}: the model has layers 0 to {max(present, default=-1)}")
    kept = sorted(present - set(prune_layers))
    if not kept:
        raise UsageError("cannot prune every layer of the model")
    first = min(prune_layers)
    lower = [block for block in kept if block < first]
    start = lower[-1] + 1 if lower else 0
    numbers = {block: block for block in lower}
    numbers |= {block: start + i for i, block in enumerate(kept[len(lower) :])}
    result = {}
    for name in names:
        if name not in blocks:
            result[name] = name
        elif blocks[name] in numbers:
            result[name] = _BLOCK.sub(f"blk.{numbers[blocks[name]]}.", name, count=1)
    return result, start + len(kept) - len(lower)
