"""What ways of training and saving leave in the names and shapes of a checkpoint, beside the model's own weights.

_orig_mod.  module.  _fsdp_wrapped_module.     wrappers' prefixes: taken off
rotary_emb.cos_cached  _extra_state            buffers and states, which are not needed to run the model
base_layer  lora_A                             an adapter that was not merged
a weight of shape [0]                          the place of a weight that other ranks hold
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import BadInput
from ..rows import Rows
from .naming import shown, shown_list

T = TypeVar("T")
#: parts that wrappers of modules put into names, wherever they are; no model calls a module so
_INNER = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
#: beginnings that are a wrapper's where all names have them
_OUTER = ("module.", "base_model.model.", "model_state_dict.", "state_dict.")
_BUFFER = re.compile(
    r"(^|\.)(_extra_state(\.\w+)?|((original_)?inv_freq|(cos|sin)_cached|cos_sin_cache|freqs_(cis|cos|sin))"
    r"|(rotary\w*|rope)\.(\w+\.)?(freqs|cos|sin)|attention\.(masked_)?bias)$"
)
_ADAPTER = re.compile(
    r"\.(base_layer|original_module|modules_to_save|lora_(A|B|E|embedding_A|embedding_B|magnitude_vector)|ia3_l"
    r"|hada_\w+|lokr_\w+|vera_\w+|b?oft_\w+|token_adapter)(\.|$)"
)


def unwrapped(tensors: Mapping[str, T], where: Path, warnings: list[str]) -> Mapping[str, T]:
    """``tensors`` by the names that the model itself gives them; a note goes to ``warnings`` where these are others.

    >>> list(unwrapped({"module._orig_mod.lm_head.weight": 1, "module._orig_mod.norm.weight": 2}, Path("m"), []))
    ['lm_head.weight', 'norm.weight']
    """
    taken: dict[str, None] = {}
    names: Sequence[str] = list(tensors)
    while names:
        inner = {part: None for name in names for part in _INNER.findall(name)}
        outer = next(
            (p for p in _OUTER if all(name.startswith(p) for name in names) and not _holds_adapter(p, names)), ""
        )
        if not inner and not outer:
            break
        taken.update({**inner, **({outer: None} if outer else {})})
        names = [_INNER.sub("", name).removeprefix(outer) for name in names]
    if not taken or len(set(names)) < len(names):
        return tensors
    warnings.append(f"{where}: {shown_list(list(taken))} of a wrapper is removed from the names of tensors")
    return dict(zip(names, tensors.values(), strict=True))


def _holds_adapter(prefix: str, names: Sequence[str]) -> bool:
    return prefix == "base_model.model." and any(map(is_of_adapter, names))


def is_buffer(name: str) -> bool:
    """Whether tensor ``name`` follows from config.json or is a state of the training, so that runtimes do without.

    >>> is_buffer("model.layers.0.self_attn.rotary_emb.cos_cached"), is_buffer("layers.0.mlp._extra_state"), is_buffer("cos.bias")
    (True, True, False)
    """
    return _BUFFER.search(name) is not None


def is_of_adapter(name: str) -> bool:
    """Whether tensor ``name`` is that of a PEFT adapter, or of a layer that one is put around."""
    return _ADAPTER.search(name) is not None


def refuse_adapter(tensors: Mapping[str, Rows], where: Path) -> None:
    """BadInput where an adapter among ``tensors`` was not merged: its base alone would be another model."""
    found = next(filter(is_of_adapter, tensors), None)
    if found is not None:
        raise BadInput(
            f"{where}: tensor {shown(found)} is of a PEFT adapter that was not merged into the model",
            "Call merge_and_unload() before saving, or name base and adapter in a recipe: model: MODEL+ADAPTER.",
        )


def refuse_unsaved(tensors: Mapping[str, Rows], where: Path) -> None:
    """BadInput where weights have the shape [0]: they were spread over ranks and not gathered when one of these saved."""
    empty = [name for name, rows in tensors.items() if rows.shape == (0,) and name.endswith(".weight")]
    if empty:
        raise BadInput(
            f"{where}: {len(empty)} of {len(tensors)} tensors are empty (shape [0]): {shown_list(empty)}",
            "So one rank saves a model whose parameters are spread over all (DeepSpeed ZeRO-3, FSDP). Gather them when saving"
            " (stage3_gather_16bit_weights_on_model_save), or run zero_to_fp32.py on the training checkpoint.",
        )
