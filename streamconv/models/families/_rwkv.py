"""What the RWKV models share: mixing vectors in one tensor, names without suffix, the world's vocabulary and template."""

from __future__ import annotations

from collections.abc import Sequence

from ...kit import Reshaped, join, squeezed
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ..rules import Make, Rule
from ..tokenizers import TokenizerRule
from ..tokenizers.brought_along import template_where_none
from ..tokenizers.rwkv import MODEL, read_rwkv

WORLD = TokenizerRule(("world",), own={"world": (MODEL, read_rwkv)})


def suffixed(name: str) -> str:
    """``name`` with the suffix that tensors have elsewhere."""
    return name if name.endswith((".weight", ".bias")) else f"{name}.weight"


def fused(sources: Sequence[str]) -> Rule:
    """Mixing vectors of a block, one behind the other."""
    return Rule(("blk.{bid}.time_mix_lerp_fused.weight",), tuple(sources), _stacked)


def _stacked(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    vectors = [squeezed(each) for each in rows]
    return [Reshaped(join(vectors), (len(vectors), 1, 1, vectors[0].shape[0]))]


def repeated(*targets: str) -> Make:
    """The same rows under several names."""
    return lambda rows, _config: [rows[0] for _ in targets]


def world_tokens(m: Metadata, _a: str, _c: Config) -> None:
    """Ends of texts and turns, and the template of models without one."""
    for name, index in (("bos", 0), ("eos", 0), ("eot", 261)):
        m.u32(f"tokenizer.ggml.{name}_token_id", index)
    for name in ("unknown", "padding", "seperator"):
        m.remove(f"tokenizer.ggml.{name}_token_id")
    m.remove("tokenizer.ggml.pre")
    template_where_none(m, "rwkv-world")
