"""What config.json says twice, or otherwise than the tensors: which of the two counts is told.

Runtimes take a bias, an output head or a RoPE base from what is stored, so the other statement would be lost without a word.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from ..errors import BadInput
from ..sources.hf_config import flattened
from ..sources.naming import shown
from .config import Config, architecture, stated_keys
from .rope_places import said_twice

#: keys that say whether there are biases -> GGUF names of those; of other keys ``*_bias`` any bias will do
_BIASES = {
    "attention_bias": r"\.attn_(?!\w*norm)\w+\.bias",
    "qkv_bias": r"\.attn_(q|k|v|qkv)\.bias",
    "mlp_bias": r"\.ffn_(?!\w*norm)\w+\.bias",
    "use_bias": r"\.(ssm_(in|out)|(attn|ffn)_(?!\w*norm)\w+)\.bias",
    "mamba_proj_bias": r"\.ssm_(in|out)\.bias",
    **dict.fromkeys(("use_conv_bias", "mamba_conv_bias"), r"\.ssm_conv1d\.bias"),
    **dict.fromkeys(("lm_head_bias", "use_lm_head_bias"), r"^output\.bias"),
}
_HEAD = re.compile(r"(^|\.)lm_head\.weight$")
#: classes whose output is a distribution over tokens
_WRITERS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")


def contradictions(config: Config, tensors: Collection[str]) -> Iterator[str]:
    """Notes on what config.json says of the tensors called ``tensors`` in GGUF, and on RoPE.

    Raises
    ------
    BadInput : sliding-window layers are to be scaled, which no key says
    """
    where = config.place
    yield from said_twice(config)
    yield from _rope(config, where)
    if tensors:
        yield from _head(config, where, tensors)
        if config.further != "only":
            yield from _biases(config, where, tensors)


def _head(config: Config, where: str, tensors: Collection[str]) -> Iterator[str]:
    is_there = "output.weight" in tensors
    tied = config.get("tie_word_embeddings")
    if tied and is_there:
        yield f"{where}: 'tie_word_embeddings' is True, but the checkpoint has an output head, which runtimes use"
    if (
        tied is False
        and not is_there
        and "token_embd.weight" in tensors
        and architecture(config.raw).endswith(_WRITERS)
    ):
        stored = config.checkpoint.tensors if config.checkpoint is not None else ()
        has = (
            "has an output head, which this kind of model lacks"
            if any(map(_HEAD.search, stored))
            else "has no output head"
        )
        yield f"{where}: 'tie_word_embeddings' is False, but the checkpoint {has}: runtimes use the embedding"


def _biases(config: Config, where: str, tensors: Collection[str]) -> Iterator[str]:
    section = flattened(config.raw)
    for key in (key for key in stated_keys(config.raw) if key.endswith("_bias")):
        pattern, stated = re.compile(_BIASES.get(key, r"\.bias")), section[key]
        found = next((name for name in tensors if pattern.search(name)), "")
        if stated and not found:
            yield f"{where}: {shown(key)} is {stated}, but the checkpoint has no such bias: runtimes add none"
        if stated is False and found and key in _BIASES:
            yield f"{where}: {key!r} is False, but the checkpoint has biases such as {found}, which runtimes add"


def _rope(config: Config, where: str) -> Iterator[str]:
    rope = config.rope
    if rope.get("rope_type") == "default" and rope.get("factor") not in (None, 1):
        yield f"{where}: RoPE has a factor of {rope['factor']} and no kind of scaling: positions are left as they are"
    kind = config.rope_local.get("rope_type", "default")
    if kind != "default":
        raise BadInput(
            f"{where}: RoPE of sliding layers is {kind!r}, runtimes do not scale it",
            "No key of a GGUF file says so, so the output would be another model.",
        )
