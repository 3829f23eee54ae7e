"""What a family is: one frozen description, told in one short file each.

The builder (``build.py``) does everything; a family says what is special about it. Its tables call a tensor by its *stem*: the
GGUF name without the block's number and without ``.weight`` or ``.bias``, such as ``attn_q`` or ``output_norm``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, TypeVar

from ..rows import Rows
from ..sources.hf_config import flattened
from .assumed import GATED_SILU, Assumed
from .config import Config
from .keys import BASE, Key
from .names import plain_name, why_not_of_text
from .rules import SUFFIXES, Names, Rule
from .tokenizers import TokenizerRule

T = TypeVar("T")
#: (stored rows, configuration) -> rows of the output
Transform = Callable[[Rows, Config], Rows]


def class_defaults(
    vocabulary: int | None,
    context: int,
    hidden: int,
    ffn: int | None,
    layers: int,
    heads: int,
    kv_heads: int | None,
    **more: Any,
) -> dict[str, Any]:
    """Class defaults of a decoder's configuration; ``more`` is what is not as in most. No ``kv_heads``: as many as heads."""
    return {
        "vocab_size": vocabulary, "max_position_embeddings": context, "hidden_size": hidden, "intermediate_size": ffn,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "rms_norm_eps": 1e-6,
        "hidden_act": "silu", "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, **more,
    }  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One model family, or the projector of one.

    Attributes
    ----------
    arch : GGUF ``general.architecture``
    architectures : Hugging Face ``architectures[0]`` spellings
    projectors : of a projector: the values of ``clip.projector_type`` that it writes
    tokenizer : which tokenizer readers to try, and the family's peculiarities; None for a projector
    classes : ``model_type`` -> class defaults of config keys, see ``config.normalise``; none: config.json is read as it stands
    target : what is read of the model that it drafts for, which it cannot do without: ``tokenizer``, or ``family`` where that is
        read as that model's family does; empty: it stands alone
    further : numbers of the blocks that predict further tokens, behind all others; None: none that can be written apart
    modules : folders of modules whose matrices belong to the model -> what these are called among its tensors
    n_tokens : how many tokens there are to be, where that is not the configuration's ``vocab_size``
    kind : ``model`` or ``mmproj``
    section : config.json -> the keys that are meant
    variant : (itself, configuration) -> the family that is meant, where one name stands for several
    assumes : key of the configuration -> the values that runtimes compute with, as no key of the output can say another
    idle : patterns of keys that change nothing, besides those of ``assumed.py``
    keys : hyper-parameter keys in file order
    token_keys : keys of the tokenizer that are added to those that its files give, or changed, after these have been read
    why_not : why a tensor of the checkpoint is of another module, None where it is of this one
    spelled : name in the checkpoint -> name as rules and tables spell it
    drops : pattern of names, so spelled -> why they are left out
    rules : tensors that are not just renamed
    named_as : architecture that the ``gguf`` package is asked for names by, where it lacks ``arch`` or has others there
    names : names that the ``gguf`` package does not know for ``arch`` or gives to others, without suffix -> GGUF name
    suffixes : ends of the names of tensors that are renamed without them
    transforms : stem, or a pattern of stems such as ``*norm`` -> what to do with the rows
    types : pattern of GGUF names -> type that runtimes expect, whatever the file type is; ``as the file``: no other than that; see
        ``quant/converter_types.py``
    type_of : rows -> type that they keep, whatever the file type is, None for others; ``types`` go before
    kept : block types that are copied from where they lie; a source of such rows is spelled with the type, ``NAME:MXFP4``
    misfits : patterns of GGUF names of tensors that the reference writes in a shape that no runtime takes: told, not refused
    cut_vocabulary : embedding rows beyond the tokenizer's tokens are dropped
    """

    arch: str
    architectures: tuple[str, ...]
    tokenizer: TokenizerRule | None
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    target: str = ""
    further: Callable[[Config], range] | None = None
    modules: Mapping[str, str] = field(default_factory=dict)
    n_tokens: Callable[[Config], int | None] = lambda _config: None
    kind: str = "model"
    section: Callable[[Mapping[str, Any]], Mapping[str, Any]] = flattened
    variant: Callable[[Family, Config], Family] = lambda family, _config: family
    assumes: Mapping[str, Assumed] = field(default_factory=lambda: GATED_SILU)
    idle: tuple[str, ...] = ()
    keys: tuple[Key, ...] = BASE
    token_keys: tuple[Key, ...] = ()
    why_not: Callable[[str], str | None] = why_not_of_text
    spelled: Callable[[str, Config], str] = lambda name, _config: plain_name(name)
    drops: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    named_as: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    type_of: Callable[[Rows], str | None] = lambda _rows: None
    kept: tuple[str, ...] = ()
    misfits: tuple[str, ...] = ()
    cut_vocabulary: bool = False
    projectors: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = SUFFIXES

    @cached_property
    def tensor_names(self) -> Names:
        """What its tensors are called and made of."""
        return Names(self.named_as or self.arch, self.rules, self.names, self.suffixes)

    def transform_of(self, stem: str) -> Transform | None:
        """What to do with the rows of a tensor; None: they stay as they are."""
        return _first(self.transforms, stem)

    def why_dropped(self, name: str) -> str | None:
        """Why a tensor, named as rules spell it, is left out; None where it is not."""
        return _first(self.drops, name)

    def has_rule(self, name: str, config: Config) -> bool:
        """Whether a tensor, named as rules spell it, is not just renamed."""
        return any(self.tensor_names.ruled(name, config))

    def forced_type(self, name: str, rows: Rows | None = None) -> str | None:
        """The type that a tensor has in any file, by its GGUF ``name`` or by its ``rows``; None: that of the file."""
        found = _first(self.types, name)
        return self.type_of(rows) if found is None and rows is not None else found

    def is_misfit(self, names: Iterable[str]) -> bool:
        """Whether tensors of GGUF ``names`` may have shapes that no runtime takes."""
        return all(any(fnmatchcase(name, pattern) for pattern in self.misfits) for name in names)

    def kept_type(self, rows: Rows) -> str | None:
        """The block type that the rows are copied in; None: they are encoded like others."""
        return next((kind for kind in self.kept if rows.native(kind, 0, 0) is not None), None)


def _first(patterns: Mapping[str, T], name: str) -> T | None:
    return next((value for pattern, value in patterns.items() if fnmatchcase(name, pattern)), None)
