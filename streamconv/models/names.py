"""Tensor names: which are not part of the text model, how they are spelled, and which templates they fit."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from ..sources.state_dicts import is_buffer

#: Starts of names that belong to other modules of a multimodal checkpoint.
_OTHER_STARTS = ("mlp", "vit.", "vpm.", "siglip2.", "merger.", "resampler.", "conformer.", "sound_")
#: Parts of names that belong to other modules of a multimodal checkpoint.
_OTHER_PARTS = (
    "visual.", "vision.", "vision_", "audio.", "audio_", "talker.", "projector.", "patch_embed", "image_newline",
    "model.connector.", "token2wav.", "code2wav.", "multi_modal_projector.", "patch_merge",
)  # fmt: skip
#: pattern of names without a place -> what they are
_STRANGERS = {
    r"^(module|_orig_mod|base_model\.model|model\.model|state_dict)\.": "Its name begins with the prefix of a wrapper, which other"
    " names do not have, so it is not taken off: save model.state_dict() of the model itself.",
    r"\.(qweight|qzeros|g_idx|scales|biases|absmax|SCB|quant_state\..*|weight_(packed|scale\w*|zero_point|shape)|\w+_scale(_inv)?)$":
    "It is a part of a quantized weight, of an encoding that this version does not know: use the checkpoint it was made from.",
    r"(^|\.)(optimizer|optim|exp_avg|exp_avg_sq|ema\w*)(\.|$)": "It is a state of a training, not a weight: save the model alone.",
    r"(^|\.)(score|classifier|classification_head|value_head|v_head)\.": "It is the head of a classifier or of a reward model,"
    " which this architecture does not have.",
}  # fmt: skip
_GGUF_BLOCK = re.compile(r"^blk\.[^.]+\.")

T = TypeVar("T")


def why_not_of_text(name: str) -> str | None:
    """Why tensor ``name`` is not part of a text model, None where it is: it is of a vision or audio module, or a buffer."""
    if is_buffer(name):
        return "a buffer"
    if name.startswith(_OTHER_STARTS) or any(part in name for part in _OTHER_PARTS):
        return "not part of the text model"
    return None


def hint_of_stranger(name: str) -> str:
    """What to do about tensor ``name``, which has no place in its architecture."""
    known = next((hint for pattern, hint in _STRANGERS.items() if re.search(pattern, name)), "")
    return known or "It belongs to another module, or to a variant of the architecture that this version does not know."


def plain_name(name: str) -> str:
    """``name`` as a text-only checkpoint would spell it.

    >>> plain_name("model.language_model.layers.0.mlp.up_proj.weight"), plain_name("layers.0.mlp.up_proj.weight")
    ('model.layers.0.mlp.up_proj.weight', 'model.layers.0.mlp.up_proj.weight')
    >>> plain_name("llm.model.norm.weight")
    'model.norm.weight'
    """
    name = name.removeprefix("llm.").removeprefix("thinker.").replace("language_model.", "")
    if name.startswith(("layers.", "embed_tokens.", "norm.")):  # saved from the bare model class
        name = "model." + name
    return name.replace("e_score_correction_bias", "e_score_correction.bias")


def stem_of(name: str) -> str:
    """What a tensor of GGUF name ``name`` is called in any block, weight or bias.

    >>> stem_of("blk.12.attn_q.bias"), stem_of("blk.{bid}.attn_q"), stem_of("output_norm.weight")
    ('attn_q', 'attn_q', 'output_norm')
    """
    return _GGUF_BLOCK.sub("", name).removesuffix(".weight").removesuffix(".bias")


class Indices(NamedTuple):
    """Which one of many alike a tensor is; None where there is but one.

    Attributes
    ----------
    bid : number of its block
    x : number of its expert
    """

    bid: int | None
    x: int | None


class Templates(Generic[T]):
    """Templates of names, in which ``{bid}`` and ``{x}`` are numbers, and what belongs to each.

    >>> templates = Templates([("h.{bid}.layer.0.w", "a"), ("h.{bid}.layer.1.w", "b")])
    >>> templates.find("h.12.layer.1.w")
    [('b', Indices(bid=12, x=None))]
    >>> Templates([("stage.1.block.1.w", "c")]).find("stage.4.block.1.w")
    []
    """

    def __init__(self, pairs: Iterable[tuple[str, T]]) -> None:
        self._by_pattern: dict[str, list[tuple[list[str], T]]] = defaultdict(list)
        for template, value in pairs:
            pattern, numbers = _pattern(template)
            self._by_pattern[pattern].append((numbers, value))

    def find(self, name: str) -> list[tuple[T, Indices]]:
        """What belongs to the templates that ``name`` fits."""
        pattern, numbers = _pattern(name)
        found = []
        for wanted, value in self._by_pattern.get(pattern, ()):
            given = dict(zip(wanted, numbers, strict=True))
            bid, x = given.get("{bid}"), given.get("{x}")
            if all(key in ("{bid}", "{x}", number) for key, number in zip(wanted, numbers, strict=True)):
                found.append((value, Indices(None if bid is None else int(bid), None if x is None else int(x))))
        return found


def _pattern(name: str) -> tuple[str, list[str]]:
    """``name`` with ``#`` for each of its parts that is a number, and those parts."""
    parts = name.split(".")
    at = [n for n, part in enumerate(parts) if (part.isdecimal() and part.isascii()) or part in ("{bid}", "{x}")]
    numbers = [parts[n] for n in at]
    for n in at:
        parts[n] = "#"
    return ".".join(parts), numbers
