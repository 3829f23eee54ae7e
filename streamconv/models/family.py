"""What a family is: one frozen description, told in one short file each.

The builder (``build.py``) does everything; a family says what is special about it. Its tables call a tensor by its *stem*: the
GGUF name without the block's number and without ``.weight`` or ``.bias``, such as ``attn_q`` or ``output_norm``. Only ``names``,
which says what is in a block and what is not, has whole names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ..rows import Floats, Rows
from .config import Config
from .keys import BASE, Key
from .names import LLAMA_NAMES, stem_of
from .tokenizers import TokenizerRule

#: (stored rows, configuration) -> rows of the output
Transform = Callable[[Rows, Config], Rows]


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
    names : Hugging Face name -> GGUF name, both without ``.weight`` or ``.bias`` and with ``{bid}`` for the block's number
    transforms : stem, or a pattern of stems such as ``*norm`` -> what to do with the rows
    shapes : stem -> expected shape of the weight, whose first size is that of a bias; a size is a sum such as ``q + kv + kv``
        of hidden, head_dim, q, kv and ffn, or ``vocabulary``, which is not checked here
    needed : stems of the weights without which no runtime can work, in every block if they are of blocks
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

    def transform_of(self, stem: str) -> Transform | None:
        """What to do with the rows of a tensor; None: they stay as they are."""
        return next((t for pattern, t in self.transforms.items() if fnmatchcase(stem, pattern)), None)

    def needed_weights(self, n_layers: int) -> list[str]:
        """The whole GGUF names of ``needed`` in a model of ``n_layers`` blocks."""
        whole = {stem_of(name): f"{name}.weight" for name in self.names.values()}
        return list(dict.fromkeys(whole[stem].format(bid=b) for b in range(n_layers) for stem in self.needed))


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
#: Weights that every decoder of the Llama layout has.
NEEDED: tuple[str, ...] = (
    "token_embd", "output_norm", "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_up", "ffn_down",
)  # fmt: skip
