"""Reading config.json as the reference converter sees it, without transformers.

The reference loads the file through a transformers configuration class, so absent keys take class defaults and legacy
spellings of the RoPE parameters are folded into one dictionary. The class defaults are facts that each family file states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BadInput
from ..sources.checkpoint import Checkpoint
from ..sources.hostile_json import NotJson, parse_json
from ..sources.naming import shown

#: spellings of the numbers of attention heads, of layers and of experts, and of the width of the residual stream
HEADS = "num_attention_heads", "n_head", "n_heads"
LAYERS = "num_hidden_layers", "n_layers", "n_layer", "num_layers"
HIDDEN = "hidden_size", "n_embd", "dim", "d_model"
EXPERTS = "num_local_experts", "num_experts", "n_routed_experts"
_TEXT_SECTIONS = ("text_config", "llm_config", "lm_config", "language_config")
#: far more than any model has; what is planned grows with them
_MAX_LAYERS, _MAX_HEAD_DIM = 10_000, 1 << 16
_MAX_REAL = 3.4e38


def text_section(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The root with the section of the text model, where there is one, merged over it."""
    merged = dict(raw)
    for name in _TEXT_SECTIONS:
        section = raw.get(name)
        if isinstance(section, Mapping):
            merged.update(section)
    return merged


def architecture(raw: Mapping[str, Any]) -> str:
    """The Hugging Face architecture name of the text model.

    Raises
    ------
    BadInput : config.json names none
    """
    section = raw.get("text_config")
    for where in (section if isinstance(section, Mapping) else {}, raw):
        names = where.get("architectures")
        if isinstance(names, list) and names and isinstance(names[0], str):
            return names[0]
    raise BadInput("config.json has no 'architectures'", "Is this the folder of a whole model?")


@dataclass(frozen=True)
class Config:
    """A normalised configuration.

    Attributes
    ----------
    values : keys of the text model with class defaults filled in
    rope : ``rope_parameters`` of the full-attention layers: rope_type, rope_theta, factor, …
    rope_local : the same for sliding-window layers, {} where the family has one kind
    checkpoint : whose it is: config.json as it stands, and side files
    """

    values: Mapping[str, Any]
    rope: Mapping[str, Any]
    rope_local: Mapping[str, Any]
    checkpoint: Checkpoint | None = None

    @property
    def raw(self) -> Mapping[str, Any]:
        """config.json as it stands, all sections."""
        return self.checkpoint.config if self.checkpoint is not None else self.values

    @property
    def folder(self) -> str:
        """Where it lies, for messages."""
        return str(self.checkpoint.folder) if self.checkpoint is not None else "the checkpoint"

    def side(self, name: str) -> Any:
        """What is in another JSON file of the checkpoint, None where it has none of that name."""
        return self.checkpoint.json(name) if self.checkpoint is not None else None

    def side_list(self, name: str) -> list[Any]:
        """What is in another JSON file of the checkpoint that is a list; empty where it has none of that name."""
        text = self.checkpoint.text(name) if self.checkpoint is not None else None
        try:
            found = [] if text is None else parse_json(text.encode())
        except NotJson as e:
            raise BadInput(f"{self.folder}/{name} {e}") from None
        if not isinstance(found, list):
            raise BadInput(f"{self.folder}/{name} is not a JSON list")
        return found

    def get(self, *names: str) -> Any:
        """The first of ``names`` that is present and not null, else None."""
        for name in names:
            if self.values.get(name) is not None:
                return self.values[name]
        return None

    def integer(self, *names: str, most: int = (1 << 31) - 1) -> int:
        """The first of ``names``, which must be there and a whole number up to ``most`` (BadInput otherwise)."""
        value = self.get(*names)
        if value is None:
            raise BadInput(f"config.json: {names[0]!r} is missing")
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 <= value < math.inf or value != int(value):
            raise BadInput(f"config.json: {names[0]!r} is {shown(repr(value))}, not a whole number")
        if value > most:
            raise BadInput(f"config.json: {names[0]!r} is {shown(repr(value))}, more than any model has")
        return int(value)

    def real(self, *names: str) -> float:
        """The first of ``names``, which must be there and a number (BadInput otherwise)."""
        value = self.get(*names)
        if not _is_real(value):
            what = "missing" if value is None else shown(repr(value))
            raise BadInput(f"config.json: {names[0]!r} is {what}, not a number that can be used")
        return float(value)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.integer(*LAYERS, most=_MAX_LAYERS)

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.integer(*HIDDEN)

    @property
    def n_heads(self) -> int:
        """Attention heads."""
        return self.integer(*HEADS)

    @property
    def n_kv_heads(self) -> int:
        """Key/value heads; as many as heads where the configuration has no such key."""
        return self.integer("num_key_value_heads", "n_kv_heads") if self.get("num_key_value_heads") else self.n_heads

    @property
    def n_experts(self) -> int:
        """Experts of a block, 0 where the configuration has none."""
        return self.integer(*EXPERTS) if self.get(*EXPERTS) is not None else 0

    @property
    def head_dim(self) -> int:
        """Width of one head, stated or derived."""
        if self.get("head_dim") is not None:
            return self.integer("head_dim", most=_MAX_HEAD_DIM)
        return self.hidden // max(self.n_heads, 1)


def _is_real(value: Any) -> bool:
    """Whether ``value`` is a number, and one that a 32-bit float can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _MAX_REAL


def normalise(
    values: Mapping[str, Any],
    defaults: Mapping[str, Any],
    derive_head_dim: bool = False,
    checkpoint: Checkpoint | None = None,
) -> Config:
    """The configuration with the keys ``values``, those of the section that is meant.

    Parameters
    ----------
    defaults : class defaults of the family; ``rope_parameters`` among them
    derive_head_dim : the class states ``head_dim`` as hidden_size / heads when the file lacks it
    checkpoint : whose they are
    """
    for names in (HEADS, EXPERTS, LAYERS, HIDDEN):  # what is stated in one spelling has no default in another
        if any(values.get(name) is not None for name in names):
            defaults = {k: v for k, v in defaults.items() if k not in names}
    # An explicit null counts as absent where the class computes or defaults the value; that of sliding_window means none.
    merged = {**defaults, **{k: v for k, v in values.items() if v is not None or defaults.get(k) is None}}
    if "sliding_window" in values:
        merged["sliding_window"] = values["sliding_window"]
    if values.get("num_key_value_heads", 0) is None or merged.get("num_key_value_heads") is None:
        merged["num_key_value_heads"] = merged.get("num_attention_heads")
    if derive_head_dim and merged.get("head_dim") is None:
        config = Config(merged, {}, {})
        merged["head_dim"] = config.hidden // max(config.n_heads, 1)
    rope, local = _rope(merged, defaults.get("rope_parameters", {}))
    return Config(merged, rope, local, checkpoint)


def _rope(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """RoPE parameters of full and of sliding-window layers, from new or legacy spellings."""
    given = values.get("rope_parameters") if values.get("rope_parameters") != defaults else None
    stated = dict(given) if isinstance(given, Mapping) else {}
    if isinstance(stated.get("full_attention"), Mapping) or isinstance(stated.get("sliding_attention"), Mapping):
        full, local = dict(stated.get("full_attention") or {}), dict(stated.get("sliding_attention") or {})
    else:
        scaling = values.get("rope_scaling")
        full = {**(dict(scaling) if isinstance(scaling, Mapping) else {}), **stated}
        if not full and "rope_scaling" not in values and "full_attention" not in defaults:
            full = {k: v for k, v in defaults.items() if k != "rope_theta"}
        local = {}
    two_kinds = "full_attention" in defaults
    full_default = defaults["full_attention"] if two_kinds else defaults
    if "rope_type" not in full:
        full["rope_type"] = full.get("type", "default")
    for legacy in ("rope_theta", "rotary_emb_base"):
        if full.get("rope_theta") is None and values.get(legacy) is not None:
            full["rope_theta"] = values[legacy]
    if full.get("rope_theta") is None:
        full["rope_theta"] = full_default.get("rope_theta")
    if full.get("original_max_position_embeddings") is None and values.get("original_max_position_embeddings"):
        full["original_max_position_embeddings"] = values["original_max_position_embeddings"]
    if two_kinds:
        local.setdefault("rope_type", "default")
        if local.get("rope_theta") is None:
            theta = values.get("rope_local_base_freq")
            local["rope_theta"] = theta if theta is not None else defaults["sliding_attention"]["rope_theta"]
    for key, value in (*full.items(), *local.items()):
        if isinstance(value, (int, float)) and not (isinstance(value, bool) or _is_real(value)):
            raise BadInput(f"config.json: {key!r} of RoPE is {shown(repr(value))}, not a number that can be used")
        if key == "rope_theta" and value is not None and not (_is_real(value) and value > 0):
            raise BadInput(f"config.json: 'rope_theta' is {shown(repr(value))}, not a number above 0")
    return full, local
