"""What a family is: one frozen description, told in one short file each.

The builder (``build.py``) does everything; a family says what is special about it. Its tables call a tensor by its *stem*: the
GGUF name without the block's number and without ``.weight`` or ``.bias``, such as ``attn_q`` or ``output_norm``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from ..rows import Rows
from .config import Config, text_section
from .keys import BASE, Key
from .names import plain_name, why_not_of_text
from .rules import Names, Rule
from .tokenizers import TokenizerRule

T = TypeVar("T")
#: (stored rows, configuration) -> rows of the output
Transform = Callable[[Rows, Config], Rows]


class Assumed(NamedTuple):
    """What runtimes take a key of the configuration to be; one that is absent or null is that.

    Attributes
    ----------
    values : with which they compute as the configuration says
    otherwise : what they do where it says another; empty: such a model is refused, as all it says would be wrong
    """

    values: tuple[Any, ...]
    otherwise: str = ""


#: What runtimes compute in decoders of the Llama layout.
GATED_SILU: Mapping[str, Assumed] = {
    "hidden_act": Assumed(("silu", "swish")),
    "partial_rotary_factor": Assumed((1,)),
    "use_sliding_window": Assumed((False,), "runtimes let every layer look at the whole context"),
}
#: What they compute in Gemma, whatever an old ``hidden_act`` says.
GELU_TANH: Mapping[str, Assumed] = {
    "hidden_activation": Assumed(("gelu_pytorch_tanh",)),
    "attention_bias": Assumed((False,)),
}


@dataclass(frozen=True)
class Family:
    """One model family, or the projector of one.

    Attributes
    ----------
    arch : GGUF ``general.architecture``
    architectures : Hugging Face ``architectures[0]`` spellings
    tokenizer : which tokenizer readers to try, and the family's peculiarities; None for a projector
    defaults : class defaults of config keys, used where config.json lacks them
    n_tokens : how many tokens there are to be, where that is not the configuration's ``vocab_size``
    kind : ``model`` or ``mmproj``
    section : config.json -> the keys that are meant
    derive_head_dim : the configuration class states head_dim as hidden_size / heads when it is absent
    variant : (itself, configuration) -> the family that is meant, where one name stands for several
    assumes : key of the configuration -> the values that runtimes compute with, as no key of the output can say another
    keys : hyper-parameter keys in file order
    why_not : why a tensor of the checkpoint is of another module, None where it is of this one
    spelled : name in the checkpoint -> name as rules and tables spell it
    n_blocks : how many blocks there are, those included that predict further tokens
    drops : pattern of names, so spelled -> why they are left out
    rules : tensors that are not just renamed
    names : names that the ``gguf`` package does not know for ``arch`` or gives to others, without suffix -> GGUF name
    transforms : stem, or a pattern of stems such as ``*norm`` -> what to do with the rows
    types : pattern of GGUF names -> type that runtimes expect, whatever the file type is
    kept : block types that are copied from where they lie; a source of such rows is spelled with the type, ``NAME:MXFP4``
    shapes : stem -> expected shape of the weight, whose first size is that of a bias; a size is a sum such as ``q + kv + kv``
        of hidden, head_dim, q, kv and ffn, or ``vocabulary``, which is not checked here
    needed : the weights without which no runtime can work, ``{bid}`` standing for every block; one of several: ``a | b``
    cut_vocabulary : embedding rows beyond the tokenizer's tokens are dropped
    """

    arch: str
    architectures: tuple[str, ...]
    tokenizer: TokenizerRule | None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    n_tokens: Callable[[Config], int | None] = lambda _config: None
    kind: str = "model"
    section: Callable[[Mapping[str, Any]], Mapping[str, Any]] = text_section
    derive_head_dim: bool = False
    variant: Callable[[Family, Config], Family] = lambda family, _config: family
    assumes: Mapping[str, Assumed] = field(default_factory=lambda: GATED_SILU)
    keys: tuple[Key, ...] = BASE
    why_not: Callable[[str], str | None] = why_not_of_text
    spelled: Callable[[str, Config], str] = lambda name, _config: plain_name(name)
    n_blocks: Callable[[Config], int] = lambda config: config.n_layers
    drops: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: SHAPES)
    needed: tuple[str, ...] = field(default_factory=lambda: NEEDED)
    cut_vocabulary: bool = False

    @cached_property
    def tensor_names(self) -> Names:
        """What its tensors are called and made of."""
        return Names(self.arch, self.rules, self.names)

    def transform_of(self, stem: str) -> Transform | None:
        """What to do with the rows of a tensor; None: they stay as they are."""
        return _first(self.transforms, stem)

    def why_dropped(self, name: str) -> str | None:
        """Why a tensor, named as rules spell it, is left out; None where it is not."""
        return _first(self.drops, name)

    def forced_type(self, name: str) -> str | None:
        """The type that runtimes expect of the tensor of GGUF name ``name``; None: that of the file."""
        return _first(self.types, name)

    def kept_type(self, rows: Rows) -> str | None:
        """The block type that the rows are copied in; None: they are encoded like others."""
        return next((kind for kind in self.kept if rows.native(kind, 0, 0) is not None), None)

    def missing(self, found: Collection[str], n_layers: int) -> list[str]:
        """The GGUF names of ``needed`` that are not ``found`` in ``n_layers`` blocks, the first of those that would do."""
        names = dict.fromkeys(names.format(bid=b) for b in range(n_layers) for names in self.needed)
        choices = [[f"{name}.weight" for name in alike.split(" | ")] for alike in names]
        return [names[0] for names in choices if not any(name in found for name in names)]


def _first(patterns: Mapping[str, T], name: str) -> T | None:
    return next((value for pattern, value in patterns.items() if fnmatchcase(name, pattern)), None)


#: Shapes of the weights that nearly every decoder has; a stem that is absent here is not checked.
SHAPES: Mapping[str, tuple[str, ...]] = {
    "token_embd": ("vocabulary", "hidden"),
    "output": ("vocabulary", "hidden"),
    "output_norm": ("hidden",),
    "attn_norm": ("hidden",),
    "ffn_norm": ("hidden",),
    "post_attention_norm": ("hidden",),
    "post_ffw_norm": ("hidden",),
    "attn_q_norm": ("head_dim",),
    "attn_k_norm": ("head_dim",),
    "attn_q": ("q", "hidden"),
    "attn_k": ("kv", "hidden"),
    "attn_v": ("kv", "hidden"),
    "attn_output": ("hidden", "q"),
    "ffn_gate": ("ffn", "hidden"),
    "ffn_up": ("ffn", "hidden"),
    "ffn_down": ("hidden", "ffn"),
}
#: Weights that every decoder has.
NEEDED_ATTENTION: tuple[str, ...] = (
    "token_embd", "output_norm", "blk.{bid}.attn_norm", "blk.{bid}.attn_q", "blk.{bid}.attn_k", "blk.{bid}.attn_v",
    "blk.{bid}.attn_output", "blk.{bid}.ffn_norm",
)  # fmt: skip
#: Weights that every decoder of the Llama layout has.
NEEDED: tuple[str, ...] = (*NEEDED_ATTENTION, "blk.{bid}.ffn_up", "blk.{bid}.ffn_down")
#: Weights that every mixture of that layout has; some of its blocks may be dense.
NEEDED_MIXTURE: tuple[str, ...] = (
    *NEEDED_ATTENTION, "blk.{bid}.ffn_up_exps | blk.{bid}.ffn_up", "blk.{bid}.ffn_down_exps | blk.{bid}.ffn_down",
)  # fmt: skip
