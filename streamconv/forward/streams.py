"""What Gemma 3n and 4 have beside the residual: embeddings of their own for every layer, streams (AltUp), and shortcuts (LAuReL).

Source: ``gemma3n.cpp`` and ``gemma4.cpp`` of llama.cpp; AltUp: arXiv 2301.13310.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..rows import Floats, Rows
from .blocks import Group, normed
from .matmul import multiply
from .model import Model
from .numeric import gelu_

_HALF = np.float32(math.sqrt(0.5))


def gathered(rows: Rows, tokens: NDArray[np.int32]) -> Floats:
    """Rows of a table: float32[n, cols]."""
    unique, places = np.unique(tokens, return_inverse=True)
    found = np.empty((len(unique), rows.shape[-1]), np.float32)
    for at, token in enumerate(unique.tolist()):
        rows.read(token, token + 1, found[at : at + 1])
    return found[places.reshape(-1)]


def embedded(model: Model, tokens: NDArray[np.int32]) -> Floats:
    """Embeddings of ``tokens`` int32[n], scaled: float32[n, size]."""
    x = gathered(model.rows["token_embd.weight"], tokens)
    if model.embedding_scale != 1:
        x *= np.float32(model.embedding_scale)
    return x


def opened(model: Model, x: Floats, pieces: Sequence[slice], panel: Floats) -> Floats:
    """All streams of the embeddings ``x``: float32[n, streams * size]."""
    made = _projected(model, "altup_proj.weight", [x] * (model.n_streams - 1), _length(x), pieces, panel)
    return np.concatenate((x, *made), axis=1)


def closed(model: Model, h: Floats, pieces: Sequence[slice], panel: Floats) -> Floats:
    """One residual of all streams ``h``: float32[n, size]."""
    streams = np.split(h, model.n_streams, axis=1)
    rest = [np.ascontiguousarray(stream) for stream in streams[1:]]
    made = _projected(model, "altup_unembd_proj.weight", rest, _length(streams[model.active_stream]), pieces, panel)
    h = streams[0].copy()
    for stream in made:
        h += stream
    h *= np.float32(1 / model.n_streams)
    return h


def _length(x: Floats) -> Floats:
    length: Floats = np.sqrt(np.einsum("ij,ij->i", x, x))[:, None]
    return length


def _projected(
    model: Model, name: str, streams: Sequence[Floats], length: Floats, pieces: Sequence[slice], panel: Floats
) -> list[Floats]:
    """Every stream times its matrix of the tensor ``name``, brought to ``length``."""
    size, made = model.size, []
    for at, stream in enumerate(streams):
        y = multiply(stream, model.rows[name], pieces, panel, at * size, (at + 1) * size)
        made.append(y * (length / _length(y)))
    return made


def _modalities(group: Group, x: Floats) -> Floats:
    """How much each stream counts: float32[n, streams]."""
    norm = group.normed("altup_router_norm", x) * np.float32(1 / group.model.size)
    return np.tanh(group.product("altup_router", norm))


def predicted(group: Group, h: Floats) -> Floats:
    """What the streams ``h`` will be, from what they are: float32[n, streams, size]."""
    model, n = group.model, len(h)
    streams = h.reshape(n, model.n_streams, -1)
    active = np.ascontiguousarray(streams[:, model.active_stream])
    mixing = group.product("altup_predict_coef", _modalities(group, active)).reshape(n, model.n_streams, -1)
    mixed: Floats = np.matmul(mixing, streams)
    mixed += streams
    return mixed


def corrected(group: Group, streams: Floats, activated: Floats) -> Floats:
    """``streams`` moved by how far the active one was off: float32[n, streams, size]."""
    model = group.model
    share = group.product("altup_correct_coef", _modalities(group, activated)) + np.float32(1)
    wrong = activated - streams[:, model.active_stream]
    moved: Floats = streams + share[:, :, None] * wrong[:, None, :]
    return moved


def with_shortcut(group: Group, x: Floats, attended: Floats) -> Floats:
    """``attended``, the residual after attention, halfway to a low-rank shortcut of its normed input ``x``."""
    short = group.normed("laurel_post_norm", group.product("laurel_r", group.product("laurel_l", x))) + x
    short += attended
    short *= _HALF
    return short


def with_layer_input(group: Group, x: Floats) -> Floats:
    """What the layer's own embeddings of the tokens give, gated by ``x`` float32[n, size]."""
    gate = gelu_(group.product("inp_gate", x)) * _layer_input(group)
    return group.normed("post_norm", group.product("proj", gate))


def _layer_input(group: Group) -> Floats:
    """The layer's own embeddings, with its part of the projection of the usual ones: float32[n, layer_input_size]."""
    model, size = group.model, group.model.layer_input_size
    part = slice(group.layer.number * size, (group.layer.number + 1) * size)
    own = gathered(model.rows["per_layer_token_embd.weight"], group.tokens)[:, part] * np.float32(math.sqrt(size))
    usual = embedded(model, group.tokens)
    made = multiply(usual, model.rows["per_layer_model_proj.weight"], group.pieces, group.panel, part.start, part.stop)
    made *= np.float32(model.size**-0.5)
    made = normed(model, made, model.needed("per_layer_proj_norm.weight"))
    made += own
    made *= _HALF
    return made


def moved(group: Group, h: Floats, streams: Floats) -> Floats:
    """All streams after the layer, of which ``h`` is the active one's residual: float32[n, streams * size]."""
    model = group.model
    after = corrected(group, streams, h)
    first = after[:, model.active_stream] * group.model.needed(group.layer.name("altup_correct_scale.weight"))
    after[:, 1:] += with_layer_input(group, first)[:, None]
    return after.reshape(len(h), -1)
