"""Checkpoints without config.json whose configuration follows from the shapes of their tensors: Pocket TTS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..rows import Rows

#: width of a head in all models that were published
_HEAD = 64
_POCKET_TTS = "flow_lm.bos_emb"
_EMBEDDING, _WIDE = "flow_lm.conditioner.embed.weight", "flow_lm.transformer.layers.0.linear1.weight"
_NORM = re.compile(r"flow_lm\.transformer\.layers\.\d+\.norm1\.weight")
_BEFORE_VOICE = "flow_lm.bos_before_voice"


def implied_config(tensors: Mapping[str, Rows]) -> dict[str, Any]:
    """What config.json would say, {} where the tensors are of no such model.

    The vectors that Pocket TTS has learned for the beginnings of a voice and of sound count as tokens.
    """
    shapes = {name: tensors[name].shape for name in (_POCKET_TTS, _EMBEDDING, _WIDE) if name in tensors}
    if len(shapes) < 3 or any(len(shapes[name]) != 2 for name in (_EMBEDDING, _WIDE)):
        return {}
    n_tokens, width = shapes[_EMBEDDING]
    return {
        "architectures": ["PocketTTSModel"],
        "model_type": "pockettts",
        "num_hidden_layers": sum(1 for name in tensors if _NORM.fullmatch(name)),
        "hidden_size": width,
        "intermediate_size": shapes[_WIDE][0],
        "max_position_embeddings": 4096,
        "num_attention_heads": width // _HEAD,
        "vocab_size": n_tokens + (2 if _BEFORE_VOICE in tensors else 1),
        "starts_voices": _BEFORE_VOICE in tensors,
        "rope_theta": 10000.0,
        "layer_norm_eps": 1e-5,
    }
