"""Pixtral's vision tower, in Mistral Small 3 and later too: rotary pairs side by side, and the embedding of a line's end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import BadInput, InputMissing
from ...kit import Reshaped, cut
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ..families.llama import interleave_q
from ..family import Family
from ..multimodal import LEGACY
from ..rules import Rule
from ._vision import epsilon, gelu_or_silu, kind, projector, vision, vision_section

_LINE_END = "[IMG_BREAK]"
_TOKENS = "embed_tokens.weight"
#: class default of the models around the tower, by their ``model_type``
_MERGES = {"mistral3": 2, "lighton_ocr": 2}


def section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tower's section, with what the root says of its output."""
    outer = ("vision_feature_layer", "vision_feature_select_strategy", "projector_hidden_act")
    return {**{key: raw[key] for key in outer if key in raw}, **vision_section(raw)}


def merged(m: Metadata, _arch: str, c: Config) -> None:
    """How many patches a side are merged into one, where the root says so."""
    size = c.raw.get("spatial_merge_size", _MERGES.get(str(c.raw.get("model_type"))))
    if isinstance(size, int):
        m.u32("clip.vision.spatial_merge_size", size)


def why_not(name: str) -> str | None:
    """The tower, what is behind it, and the table of tokens, of which a row is part of the projector."""
    if name.endswith(_TOKENS):
        return None
    inner = name.removeprefix("model.")
    is_own = inner.startswith(("multi_modal_projector.", "vision_tower.", "vision_encoder.", "vision_projection."))
    return None if is_own else "not part of the projector"


def spelled(name: str, _config: Config) -> str:
    """``name`` as Mistral's have it; LightOn calls tower and projection otherwise."""
    if name.endswith(_TOKENS):
        return _TOKENS
    name = name.removeprefix("model.")
    return name.replace("vision_encoder.", "vision_tower.").replace("vision_projection.", "multi_modal_projector.")


def line_end(rows: Sequence[Rows], config: Config) -> Sequence[Rows]:
    """The embedding of the token behind each line of patches, without which runtimes do not load the file."""
    number = next(_numbers(config), None)
    if number is None:
        raise InputMissing(
            f"{config.folder}: no tokenizer file has the token {_LINE_END}, whose embedding is part of the projector",
            "Copy tokenizer_config.json and tokenizer.json from the model's page.",
        )
    if not 0 <= number < rows[0].shape[0]:
        raise ValueError(f"{_LINE_END} is token {number}")
    return [Reshaped(cut(rows[0], number, number + 1), (rows[0].shape[-1],))]


def _numbers(c: Config) -> Iterator[int]:
    """The number of the token, by each file that has it; Mistral's own params.json says it, or -1."""
    said = c.get("image_break_token_id")
    yield from [said] if isinstance(said, int) and said >= 0 else []
    for number, said in ((c.side("tokenizer_config.json") or {}).get("added_tokens_decoder") or {}).items():
        if said.get("content") == _LINE_END:
            yield int(number)
    lists = (
        ("tokenizer.json", "added_tokens", "content", "id"),
        ("tekken.json", "special_tokens", "token_str", "rank"),
    )
    for name, key, text, number in lists:
        yield from (int(t[number]) for t in (c.side(name) or {}).get(key) or () if t.get(text) == _LINE_END)


def variant(family: Family, c: Config) -> Family:
    """LightOn reads no ends of lines; other towers under the name of Llava are refused."""
    if (said := c.get("model_type")) not in (None, "pixtral"):
        raise BadInput(
            f"{c.place}: the vision tower's model_type is {said!r}: of Llava only projectors of 'pixtral' can be written",
            f"{LEGACY} The text model alone is converted without --mmproj.",
        )
    if c.raw.get("model_type") != "lighton_ocr":
        return family
    return replace(
        family, rules=(), drops={_TOKENS: "not part of the projector"}, keys=(*family.keys, kind("lightonocr"))
    )  # fmt: skip


FAMILY = projector(
    ("pixtral", "lightonocr"),
    ("LlavaForConditionalGeneration", "Mistral3ForConditionalGeneration", "LightOnOCRForConditionalGeneration"),
    keys=(vision, kind("pixtral"), epsilon("layer_norm_eps", default=1e-5), gelu_or_silu, merged),
    section=section,
    #: class defaults
    classes={"pixtral": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": 1024, "patch_size": 16, "hidden_act": "gelu",
    }},
    assumes={
        "rope_theta": Assumed((10000,)),
        "head_dim": Assumed(lambda _, c: (c.hidden // max(c.n_heads, 1),)),
        "projector_hidden_act": Assumed(("gelu",), "runtimes compute the projection with GELU"),
        "vision_feature_layer": Assumed((-1,), "runtimes take what the last layer gives"),
    },
    why_not=why_not,
    spelled=spelled,
    variant=variant,
    rules=(Rule(("v.token_embd.img_break",), (_TOKENS,), line_end),),
    transforms={"v.blk.*.attn_q": interleave_q, "v.blk.*.attn_k": interleave_q},
)  # fmt: skip
