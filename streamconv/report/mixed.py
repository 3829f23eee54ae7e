"""The page of a mix for a size: the mix against standard mixes, its types, and what each tensor means to the model."""

from __future__ import annotations

from collections.abc import Sequence

from ..units import size
from .depth import by_depth
from .facts import Candidate, Mixed, MixedTensor
from .layers import number_by_layer, type_map
from .markup import Markup, tag
from .numbers import byte_unit, fixed, number, percent, spread, uncertain
from .page import base_name, disc, facts, figure, folded, keys, notes, page, table
from .plots import at, dots, plot
from .scales import fitting, in_units


def mixed_page(made: Mixed) -> str:
    """The page of ``made``."""
    used = made.mix.name if made.is_kept else made.standards[0].name if made.standards else "standard mix"
    weighted = f", with {', '.join(map(base_name, made.importance))}" if made.importance else ""
    lead = f"Types for {made.source} in {size(made.target_bytes)}{weighted}. {made.verdict}"
    body: list[object] = [_facts(made, used), _against(made)]
    depth = by_depth(made.tensors)
    if depth.kinds:
        body.append(type_map("Bits by layer", depth, _bits))
        behind = " The other kinds of matrices are drawn in grey behind it."
        text = "KL divergence that the same relative error of a matrix causes, in nats for each unit of its square."
        body.append(
            number_by_layer(
                "Sensitivity by layer", text + behind, depth, lambda t: t.sensitivity, number, "sensitivities"
            )
        )
        text = "KL divergence that is predicted of each matrix in the type that it has, in nats."
        body.append(number_by_layer("Cost by layer", text + behind, depth, lambda t: t.cost, number, "costs"))
    body += [_all(made), notes(made.notes)]
    return page(f"Mix for {base_name(made.source)}", lead, *body, version=made.version)


def _bits(tensor: MixedTensor) -> float:
    n = 1
    for length in tensor.shape:
        n *= length
    return 8 * tensor.n_bytes / n if n else 0.0


def _facts(made: Mixed, used: str) -> Markup:
    mix, standard = made.mix, made.standards[0] if made.standards else None
    chosen = standard if standard is not None and not made.is_kept else mix
    told = "; ".join(f"{each.name}: {size(each.n_bytes)}, KL divergence {_said(each)}" for each in every)
    return plot(x, y, *marks, told=told, x_name=f"size, {unit_name}", y_name="mean KL divergence, nats", height=280)


def _said(each: Candidate) -> str:
    if each.divergence is not None:
        return number(each.divergence)
    return f"predicted {number(each.predicted or 0.0)}"


def _ends(each: Candidate) -> tuple[float, ...]:
    """Two standard deviations to both sides, but not below a tenth of the value: there is no 0 on a logarithmic axis."""
    if each.divergence is None:
        return ()
    return max(each.divergence - 2 * each.uncertainty, each.divergence / 10), each.divergence + 2 * each.uncertainty


def _all(made: Mixed) -> Markup:
    """The table of all tensors."""
    standard = made.standards[0].name if made.standards else ""
    rows = []
    for t in made.tensors:
        measured = ["–" if v is None else number(v) for v in (t.sensitivity, t.cost)]
        error = "–" if t.error is None else percent(t.error, 3)
        shape = " × ".join(map(str, t.shape))
        rows.append([t.name, shape, t.type, t.standard or "–", f"{t.n_bytes:,}", error, *measured, t.reason])
    heads = ["Tensor", "Shape", "Type", standard or "Standard", "Bytes", "Error", "Sensitivity", "Cost, nats", "Reason"]
    changed = sum(t.type != t.standard for t in made.tensors)
    compared = f"{changed} of {len(rows)} tensors have another type than in {standard}." if standard else ""
    return figure(
        "All tensors", compared, folded(f"Show {len(rows)} tensors", table("Every tensor", heads, rows, range(4, 8)))
    )
