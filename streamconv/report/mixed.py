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
    told = [
        ("Used", used, "chosen from measured errors" if made.is_kept else "standard mix kept"),
        ("Size", size(chosen.n_bytes), f"asked for: {size(made.target_bytes)}"),
        ("Bits per weight", f"{made.bits:.2f}", "all tensors"),
    ]
    if chosen.divergence is not None:
        text = f"± {spread(chosen.divergence, chosen.uncertainty)} nats"
        told.append(("KL divergence", number(chosen.divergence), text))
    if standard is not None and standard.divergence and mix.divergence is not None:
        paired = f"; difference {uncertain(*made.difference)} nats" if made.difference else ""
        share = f"{fixed(100 * mix.divergence / standard.divergence, 3)} %"
        told.append((f"Mix against {standard.name}", share, f"of its KL divergence{paired}"))
    return facts(*told)


def _against(made: Mixed) -> Markup:
    """Size and divergence of the mix and of standard mixes."""
    every = [made.mix, *made.standards]
    rows = [
        [
            each.name, size(each.n_bytes), f"{each.n_bytes:,}",
            "–" if each.divergence is None else uncertain(each.divergence, each.uncertainty),
            "–" if each.predicted is None else number(each.predicted),
        ]
        for each in every
    ]  # fmt: skip
    heads = ["", "Size", "Bytes", "KL divergence, nats", "Predicted"]
    whole = table("The mix and standard mixes", heads, rows, range(1, 5))
    where = f" on {made.text} that the choice did not see" if made.text else ""
    text = f"Size against mean KL divergence from the unquantized model{where}: the lower and the further left, the better."
    measured = [each for each in every if each.divergence is not None or each.predicted is not None]
    if not measured:
        return figure("Mix and standard", "The divergence was not measured.", whole)
    legend = keys((disc("dot"), "mix"), (disc("dot others"), "standard mix"), (disc("ring"), "predicted"))
    return figure("Mix and standard", text, legend, _sizes(made, measured), whole)


def _sizes(made: Mixed, every: Sequence[Candidate]) -> Markup:
    values = [v for c in every for v in (c.predicted, *_ends(c)) if v is not None and v > 0]
    sizes = [*(c.n_bytes for c in every), made.target_bytes]
    unit, unit_name = byte_unit(max(sizes))
    space = 0.12 * max(max(sizes) - min(sizes), 0.02 * max(sizes))
    x, y = in_units(max(0, min(sizes) - space), max(sizes) + space, unit), fitting(values)
    target = x.at(made.target_bytes)
    marks: list[object] = [
        tag("line", x1=at(target), x2=at(target), y1=0, y2="100%", class_="mark"),
        tag(
            "text",
            "asked for",
            x=at(target),
            y=12,
            dx=6 if target < 0.75 else -6,
            text_anchor="start" if target < 0.75 else "end",
        ),
    ]
    for each in every:
        kind, place = "" if each is made.mix else " others", x.at(each.n_bytes)
        if each.predicted is not None:
            title = f"{each.name}: predicted {number(each.predicted)}"
            marks.append(dots(x, y, [(each.n_bytes, each.predicted)], [title], f"ring{kind}", 4))
        level = each.divergence if each.divergence is not None else each.predicted
        if each.divergence is not None:
            low, high = _ends(each)
            marks.append(
                tag("line", x1=at(place), x2=at(place), y1=at(1 - y.at(low)), y2=at(1 - y.at(high)), class_="whisker")
            )
            title = f"{each.name}: {size(each.n_bytes)}, {uncertain(each.divergence, each.uncertainty)}"
            marks.append(dots(x, y, [(each.n_bytes, each.divergence)], [title], f"dot{kind}", 5))
        assert level is not None
        is_right = (
            0.25 < place <= target or place > 0.75
        )  # the name lies away from the line of the size that was asked for
        marks.append(tag(
            "text", each.name, x=at(place), y=at(1 - y.at(level)), dx=-10 if is_right else 10, dy="0.34em",
            text_anchor="end" if is_right else "start", class_="told",
        ))  # fmt: skip
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
