"""What a family is: one frozen description, told in one short file each.

The builder (``build.py``) does everything; a family says what is special about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..rows import Floats, RowSource
from .config import Config
from .keys import BASE, Key
from .names import LLAMA_NAMES
from .tokenizers import TokenizerRule

#: (stored rows, configuration) -> rows of the output
Transform = Callable[[RowSource, Config], RowSource]


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes
    ----------
    arch : GGUF ``general.architecture``
    architectures : Hugging Face ``architectures[0]`` spellings
    defaults : class defaults of config keys, used where config.json lacks them
    tokenizer : which tokenizer readers to try, and the family's peculiarities
    derive_head_dim : the configuration class states head_dim as hidden_size / heads when it is absent
    keys : hyper-parameter keys in file order
    names : Hugging Face stem -> GGUF stem, ``{bid}`` standing for the block number
    transforms : GGUF stem of a block tensor (``attn_q``) or suffix (``*norm``) -> what to do with its rows
    shapes : GGUF stem -> expected shape; a size is a sum such as ``q + kv + kv`` of hidden, head_dim, q, kv and ffn,
        or ``vocabulary``, which is not checked here
    needed : GGUF stems without which no runtime can work, ``{bid}`` standing for each block
    drops_output : the runtime uses the embedding as output head, so a head in the checkpoint is left out
    cut_vocabulary : embedding rows beyond the tokenizer's tokens are dropped
    extra_tensors : tensors that are made, not stored; they come first in the file
    """

    arch: str
    architectures: tuple[str, ...]
    defaults: Mapping[str, Any]
    tokenizer: TokenizerRule
    derive_head_dim: bool = False
    keys: tuple[Key, ...] = BASE
    names: Mapping[str, str] = field(default_factory=lambda: LLAMA_NAMES)
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    shapes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: SHAPES)
    needed: tuple[str, ...] = field(default_factory=lambda: NEEDED)
    drops_output: bool = False
    cut_vocabulary: bool = False
    extra_tensors: Callable[[Config], dict[str, Floats]] = lambda _config: {}


#: Shapes of the tensors that nearly every decoder has; a stem that is absent here is not checked.
SHAPES: Mapping[str, tuple[str, ...]] = {
    "token_embd.weight": ("vocabulary", "hidden"),
    "output.weight": ("vocabulary", "hidden"),
    "output_norm.weight": ("hidden",),
    "attn_norm.weight": ("hidden",),
    "ffn_norm.weight": ("hidden",),
    "post_attention_norm.weight": ("hidden",),
    "post_ffw_norm.weight": ("hidden",),
    "attn_q_norm.weight": ("head_dim",),
    "attn_k_norm.weight": ("head_dim",),
    "attn_q.weight": ("q", "hidden"),
    "attn_k.weight": ("kv", "hidden"),
    "attn_v.weight": ("kv", "hidden"),
    "attn_output.weight": ("hidden", "q"),
    "attn_q.bias": ("q",),
    "attn_k.bias": ("kv",),
    "attn_v.bias": ("kv",),
    "ffn_gate.weight": ("ffn", "hidden"),
    "ffn_up.weight": ("ffn", "hidden"),
    "ffn_down.weight": ("hidden", "ffn"),
}
#: Tensors that every decoder of the Llama layout has.
NEEDED: tuple[str, ...] = (
    "token_embd", "output_norm", "blk.{bid}.attn_norm", "blk.{bid}.attn_q", "blk.{bid}.attn_k", "blk.{bid}.attn_v",
    "blk.{bid}.attn_output", "blk.{bid}.ffn_norm", "blk.{bid}.ffn_up", "blk.{bid}.ffn_down",
)  # fmt: skip
