"""What makes sound of WavTokenizer's codes: convolutions and some attention, without words."""

from __future__ import annotations

from ...errors import BadInput
from ...metadata import Metadata
from ..config import Config
from ..family import Family
from ..keys import BASE, head_count_kv
from ._stated import fixed, numbers, reals
from .lfm25_audio_tokenizer import no_words


def parts(m: Metadata, a: str, c: Config) -> None:
    """Width and number of the blocks of either part."""
    for part in ("posnet", "convnext"):
        stated = c.get(part)
        found = [stated.get(key) if isinstance(stated, dict) else None for key in ("n_embd", "n_layer")]
        width, number = (n if type(n) is int else -1 for n in found)
        if width < 0 or number < 0:
            raise BadInput(f"{c.place}: {part!r} is not an object with numbers 'n_embd' and 'n_layer'")
        m.u32(f"{a}.{part}.embedding_length", width)
        m.u32(f"{a}.{part}.block_count", number)


FAMILY = Family(
    arch="wavtokenizer-dec",
    architectures=("WavTokenizerDec",),
    tokenizer=None,
    assumes={},
    keys=(
        *(key for key in BASE if key is not head_count_kv),
        numbers({
            "vocab_size": "vocab_size", "features_length": "n_embd_features", "feed_forward_length": "n_ff",
            "attention.group_norm_groups": "group_norm_groups",
        }),
        reals({"attention.group_norm_epsilon": "group_norm_epsilon"}), parts, fixed({"attention.causal": False}), no_words,
    ),
    drops={f"*codebook.{name}": "a statistic of training" for name in ("cluster_size", "embed_avg", "inited")},
)  # fmt: skip
