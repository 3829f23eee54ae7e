"""Whether a layer has the weights that it needs, in shapes that fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import BadInput
from ..rows import Rows, matrix_shape
from .layer import Layer, Recurrence

#: of each kind of layer: weights one of which it needs
_NEEDED: Mapping[str, Sequence[Sequence[str]]] = {
    "attention": (("attn_qkv", "attn_q"), ("attn_output",)),
    "latent": (("attn_q", "attn_q_b"), ("attn_kv_a_mqa",), ("attn_kv_b", "attn_k_b"), ("attn_kv_b", "attn_v_b"), ("attn_output",)),
    "scan": (("ssm_in",), ("ssm_out",), ("ssm_conv1d",)),
    "convolution": (("shortconv.in_proj",), ("shortconv.out_proj",)),
    "delta": (
        ("attn_qkv", "ssm_in", "attn_q"), ("ssm_ba", "ssm_alpha", "ssm_f_a"), ("ssm_ba", "ssm_beta"), ("ssm_out", "attn_output"),
        ("ssm_conv1d", "ssm_conv1d_q"),
    ),
}  # fmt: skip
_NEEDED_LAST = (("ffn_down", "ffn_down_exps"), ("ffn_up", "ffn_up_exps", "ffn_gate_up_exps"))


def refuse_misfits(
    rows: Mapping[str, Rows], layer: Layer, size: int, recurrence: Recurrence | None, where: str
) -> None:
    """BadInput where a weight of the layer is missing, or has a shape that does not fit ``size`` and the heads."""
    attends = not {"attention", "latent"}.isdisjoint(layer.mixers)
    if attends and (layer.n_heads < 1 or layer.n_kv < 1 or layer.n_heads % layer.n_kv):
        raise BadInput(f"{where}: block {layer.number} has {layer.n_heads} heads for {layer.n_kv} of keys and values")
    if attends and layer.rope is not None and (layer.rope.n % 2 or layer.rope.n > layer.k_size):
        raise BadInput(f"{where}: {layer.rope.n} numbers of a head of {layer.k_size} cannot be rotated in pairs")
    needed = [names for mixer in layer.mixers for names in _NEEDED[mixer]] + [*(_NEEDED_LAST if layer.feeds else ())]
    if "attention" in layer.mixers and layer.kv_of is None:
        needed.append(("attn_qkv", "attn_k"))
    for names in needed:
        if not any(layer.name(f"{name}.weight") in rows for name in names):
            raise BadInput(f"{where}: there is no tensor {layer.name(names[0])}.weight")
    for name, (n_rows, n_cols) in _expected(layer, size, recurrence).items():
        found = rows.get(layer.name(f"{name}.weight"))
        if found is None:
            continue
        have = matrix_shape(found.shape)
        if (n_rows and have[0] not in n_rows) or (n_cols and have[1] != n_cols):
            raise BadInput(
                f"{where}: the tensor {layer.name(name)}.weight has the shape {list(found.shape)}, which does not fit the sizes"
                " that the keys state"
            )


def _expected(layer: Layer, size: int, recurrence: Recurrence | None) -> dict[str, tuple[tuple[int, ...], int]]:
    """Rows (one of them; none: any) and columns (0: any) of weights by name."""
    q, k, v = layer.n_heads * layer.k_size, layer.n_kv * layer.k_size, layer.n_kv * layer.v_size
    found: dict[str, tuple[tuple[int, ...], int]] = {
        name: ((), size) for name in ("ffn_up", "ffn_gate", "ffn_gate_inp", "ssm_in", "shortconv.in_proj")
    }
    found |= {name: ((size,), 0) for name in ("ffn_down", "ssm_out", "ffn_down_shexp", "shortconv.out_proj")}
    found |= {
        name: ((1,), size) for name in ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm", "attn_norm_2")
    }
    if "attention" in layer.mixers:
        found |= {"attn_q": ((q, 2 * q), size), "attn_k": ((k,), size), "attn_v": ((v,), size)}
        found |= {
            "attn_qkv": ((q + k + v, 2 * q + k + v), size),
            "attn_output": ((size,), layer.n_heads * layer.v_size),
        }
    if "latent" in layer.mixers:
        found |= {"attn_q": ((q,), size), "attn_q_b": ((q,), 0), "attn_output": ((size,), layer.n_heads * layer.v_size)}
    if recurrence is not None:
        values, keys = recurrence.n_values * recurrence.v_size, recurrence.n_keys * recurrence.k_size
        if "delta" in layer.mixers:
            found |= {"attn_qkv": ((2 * keys + values,), size), "attn_gate": ((values,), size)}
        elif "scan" in layer.mixers:
            found["ssm_in"] = (2 * values, 2 * values + 2 * keys + recurrence.n_values), size
            found["ssm_out"] = (size,), values
    return found
