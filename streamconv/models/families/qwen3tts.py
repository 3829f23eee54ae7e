"""Qwen 3 TTS: the decoder that writes codes of sound, which are tokens behind those of texts.

Texts go through a network before they reach it, which is folded into the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import BadInput
from ...kit import ACTIVATIONS, Mapped, Projected, join
from ...metadata import Metadata
from ...rows import Rows
from ...sources.hf_config import TALKER, flattened, section
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE
from ..rules import Rule, rename
from ..tokenizers import TokenizerRule
from ..tokenizers.bpe import read_bpe
from ..tokenizers.files import TokenizerFiles
from ..tokenizers.spm import read_spm
from ..tokenizers.vocabulary import TokenType, Vocabulary

_TALKER, _SECTION, _SUPPRESSED = "talker.", TALKER, 1024
_SOURCES = (
    "model.text_embedding.weight", *(f"text_projection.linear_fc{n}.{part}" for n in (1, 2) for part in ("weight", "bias")),
    "model.codec_embedding.weight",
)  # fmt: skip


def talker(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the talker says, with the texts' number of tokens for that of all."""
    found = flattened(raw)
    return {**found, "n_codes": found.get("vocab_size"), "vocab_size": found.get("text_vocab_size")}


def code_names(talker: Mapping[str, Any]) -> list[str]:
    """A name for each code: that of the key of the talker's section which has it for an id.

    Raises
    ------
    BadInput : there is no such number, or an id is beyond the codes
    """
    count = talker.get("vocab_size")
    if type(count) is not int or not 0 < count < 1 << 20:
        raise BadInput(f"config.json: 'vocab_size' of the talker is {count!r}, not a number of codes")
    names = [f"<|codec_{n}|>" for n in range(count)]
    for key in (key for key in talker if key.endswith("_id") and talker[key] is not None):
        prefix, value = key.removesuffix("_id"), talker[key]
        ids = {f"{prefix}_{name}": n for name, n in value.items()} if isinstance(value, Mapping) else {prefix: value}
        for name, n in ids.items():
            if type(n) is not int or not 0 <= n < count:
                raise BadInput(f"config.json: {key!r} has the id {n!r}, not that of one of {count} codes")
            names[n] = f"<|{name}|>"
    return names


def read_vocabulary(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, pre: str | None) -> Vocabulary:
    """Tokens of texts, and the codes behind them."""
    has_pieces = files.has("tokenizer.model")
    found = read_spm(files, config, size) if has_pieces else read_bpe(files, config, size, pre)
    names = code_names(section(files.raw_config, _SECTION))
    found.ids()
    found.texts.extend(names)
    found.types.extend([TokenType.CONTROL] * len(names))
    if found.scores is not None:
        found.scores.extend([0.0] * len(names))
    return found


def ends(m: Metadata, a: str, c: Config) -> None:
    """The last codes are not to be sampled, but for the one that ends them; texts have no template."""
    end, total = (
        c.integer("codec_eos_token_id") + c.integer("vocab_size"),
        c.integer("n_codes") + c.integer("vocab_size"),
    )
    last = [n for n in range(max(0, total - _SUPPRESSED), total) if n != end]
    m.array("tokenizer.ggml.suppress_tokens", "INT32", last)
    if "tokenizer.ggml.eos_token_id" not in m:
        m.u32("tokenizer.ggml.eos_token_id", end)
    if "tokenizer.ggml.add_eos_token" not in m:
        m.boolean("tokenizer.ggml.add_eos_token", False)
    m.remove("tokenizer.chat_template")


def embedding(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Texts as they come out of their network, then codes."""
    text, up, up_bias, down, down_bias, codes = rows
    name = c.get("hidden_act") or "silu"
    if name not in ACTIVATIONS:
        raise BadInput(f"{c.place}: 'hidden_act' is {name!r}, not one of {', '.join(ACTIVATIONS)}")
    inner = Mapped(Projected(text, up, up_bias), ACTIVATIONS[name])
    return [join([Projected(inner, down, down_bias), codes])]


FAMILY = Family(
    arch="qwen3tts",
    named_as="qwen3",
    architectures=("Qwen3TTSForConditionalGeneration",),
    tokenizer=TokenizerRule(("texts",), own={"texts": ("", read_vocabulary)}),
    section=talker,
    assumes={**GATED_SILU, "hidden_act": Assumed(("silu",), "runtimes compute silu in the layers")},
    idle=(
        "*_config",
        "tts_*",
        "tokenizer_type",
        "num_code_groups",
        "position_id_per_seconds",
        "text_hidden_size",
        "spk_*",
    ),
    keys=BASE,
    token_keys=(ends,),
    why_not=lambda name: None if name.startswith(_TALKER) else "not part of the text model",
    spelled=lambda name, _: name.removeprefix(_TALKER),
    drops={"code_predictor.*": "what follows the first code is in a file of its own"},
    rules=(rename("codec_head.weight", "output.weight"), Rule(("token_embd.weight",), _SOURCES, embedding)),
)
