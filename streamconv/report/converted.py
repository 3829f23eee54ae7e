"""The page of a conversion: what was made, how many bits each tensor has, and how large its error is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from ..units import size
from .depth import Depth, by_depth
from .facts import Converted, Output, Tensor
from .layers import number_by_layer, type_map
from .markup import Markup, tag
from .numbers import byte_unit, number, percent, time_unit
from .page import base_name, base_names, facts, figure, folded, notes, page, section, share, table
from .plots import line, plot
from .scales import in_units

#: of the tensors with the largest errors
_WORST = 12
#: fewer points make no line of a run
_FEWEST_POINTS = 8


def converted_page(made: Converted) -> str:
    """The page of ``made``."""
    names = base_names([output.path for output in made.outputs])
    title = names[0] if len(names) == 1 else f"{base_name(made.source)} in {len(names)} outputs"
    body: list[object] = [_run(made)]
    if len(names) > 1:
        links = (tag("li", tag("a", name, href=f"#output-{n}")) for n, name in enumerate(names, 1))
        body += [tag("nav", tag("ul", *links), aria_label="Outputs"), _outputs(names, made.outputs)]
    for n, output in enumerate(made.outputs, 1):
        heading = section(names[n - 1], f"output-{n}") if len(names) > 1 else ""
        body += [heading, *_output(output, f"output-{n}")]
    body += [_progress(made), notes(made.notes)]
    weighted = (
        f", with the importance of columns from {', '.join(map(base_name, made.importance))}" if made.importance else ""
    )
    lead = f"Converted from {made.source}{weighted}."
    return page(title, lead, *body, version=made.version)


def _run(made: Converted) -> Markup:
    """How it went."""
    told: list[tuple[str, str, str]] = []
    if made.seconds is not None:
        rate = f"{size(made.input_bytes / max(made.seconds, 1e-3))}/s of input"
        told.append(("Time", _duration(made.seconds), rate))
    else:
        told.append(("Time", "–", "the output was complete already"))
    kept = f"{size(made.resumed_bytes)} of it by earlier runs" if made.resumed_bytes else ""
    told += [("Read", size(made.input_bytes), ""), ("Written", size(made.output_bytes), kept)]
    if made.peak_bytes:
        told.append(("Peak memory", size(made.peak_bytes), "private"))
    if len(made.outputs) == 1:
        output = made.outputs[0]
        told = [("Type", output.type, output.arch), *_amount(output), *_error(output), *told]
    return facts(*told)


def _amount(output: Output) -> list[tuple[str, str, str]]:
    n_weights, n_bytes = _totals(output.tensors)
    bits = 8 * n_bytes / n_weights if n_weights else 0.0
    return [
        ("Bits per weight", f"{bits:.2f}", "all tensors"),
        ("Weights", count(n_weights), f"in {len(output.tensors)} tensors"),
    ]


def _progress(made: Converted) -> Markup:
    """Bytes over time: where a run stood still, or became slower."""
    points = list(made.progress)
    if len(points) < _FEWEST_POINTS:
        return Markup("")
    seconds, most = points[-1][0], max(n for _, n in points)
    unit, unit_name = byte_unit(most)
    second, second_name = time_unit(seconds)
    x, y = in_units(0, seconds, second), in_units(0, most, unit, 4)
    x = replace(x, high=seconds, ticks=[t for t in x.ticks if t <= seconds])
    told = f"{size(most)} of the output after {number(seconds / second)} {second_name}"
    drawn = plot(
        x, y, line(x, y, points, "line"), told=told, x_name=second_name, y_name=f"{unit_name} of the output", height=160
    )
    return figure("Bytes over time", "The output as it grew; where the line is flat, the run waited.", drawn)


def _totals(tensors: Sequence[Tensor]) -> tuple[int, int]:
    return sum(t.n_weights for t in tensors), sum(t.n_bytes for t in tensors)


def _error(output: Output) -> list[tuple[str, str, str]]:
    """The middle error of what lost precision."""
    errors = _errors(output)
    return [("Error", percent(median(errors.values()), 2), "median over tensors")] if errors else []


def _errors(output: Output) -> dict[str, float]:
    """Relative errors above 0 by tensor, largest first."""
    found = {t.name: t.error for t in output.tensors if t.error}
    return dict(sorted(found.items(), key=lambda each: (-each[1], each[0])))


def _outputs(names: Sequence[str], outputs: Sequence[Output]) -> Markup:
    """Several outputs side by side."""
    rows = []
    for n, (name, output) in enumerate(zip(names, outputs, strict=True), 1):
        n_weights, n_bytes = _totals(output.tensors)
        errors = list(_errors(output).values()) or [t.error for t in output.tensors if t.error is not None]
        told = [percent(median(errors), 2), percent(max(errors), 2)] if errors else ["–", "–"]
        link, bits = tag("a", name, href=f"#output-{n}"), f"{8 * n_bytes / max(n_weights, 1):.2f}"
        rows.append([link, output.type, size(n_bytes), bits, *told])
    heads = ["Output", "Type", "Size", "Bits per weight", "Median error", "Largest error"]
    whole = table("Size and error of every output", heads, rows, range(2, 6))
    return figure("Outputs", "All are made from one read of the source.", whole)


def _output(output: Output, name: str) -> list[Markup]:
    """All figures of one output."""
    found = [_sizes(output)]
    depth = by_depth(output.tensors)
    if depth.kinds:
        found += [type_map("Bits by layer", depth, lambda t: t.bits), *_errors_by_layer(output, depth, name)]
    found += [_largest(output), _all(output)]
    return found


def _sizes(output: Output) -> Markup:
    """Bytes of every type."""
    by_type: dict[str, list[Tensor]] = {}
    for tensor in output.tensors:
        by_type.setdefault(tensor.type, []).append(tensor)
    totals = {name: _totals(tensors) for name, tensors in by_type.items()}
    whole = sum(n_bytes for _, n_bytes in totals.values())
    most = max((n_bytes for _, n_bytes in totals.values()), default=0)
    rows = [
        [
            name, share(n_bytes / max(most, 1)), size(n_bytes), percent(n_bytes / max(whole, 1), 2), count(n_weights),
            len(by_type[name]), f"{8 * n_bytes / max(n_weights, 1):.2f}",
        ]
        for name, (n_weights, n_bytes) in sorted(totals.items(), key=lambda each: (-each[1][1], each[0]))
    ]  # fmt: skip
    heads = ["Type", "", "Size", "Share", "Weights", "Tensors", "Bits per weight"]
    text = f"{size(whole)} of tensors, by the type that they are written in."
    return figure(
        "Size by type",
        text,
        table("Size of all tensors of a type", heads, rows, range(2, 7)),
    )


def _errors_by_layer(output: Output, depth: Depth[Tensor], name: str) -> list[Markup]:
    if not any(t.error for layers in depth.kinds.values() for found in layers.values() for t in found):
        return []
    text = (
        "Root mean square of what encoding changed, relative to that of the weights themselves, for every kind of matrix;"
        " the other kinds are drawn in grey behind it."
    )
    found = [number_by_layer("Error by layer", text, depth, lambda t: t.error, percent, f"{name}-errors")]
    if any(t.weighted for t in output.tensors):
        title = "Weighted error by layer"
        text = "The same with every column counted by its importance: nearer to what the outputs of the model feel."
        found.append(number_by_layer(title, text, depth, lambda t: t.weighted, percent, f"{name}-weighted"))
    return found


def _largest(output: Output) -> Markup:
    """The tensors that lost most."""
    errors = _errors(output)
    if not errors:
        known = any(t.error is not None for t in output.tensors)
        text = (
            "Every tensor that was measured holds exactly the values of the source."
            if known
            else "No error was measured."
        )
        return figure("Error", text)
    tensors = {t.name: t for t in output.tensors}
    most = max(errors.values())
    rows = [
        [name, share(error / most), percent(error, 3), tensors[name].type]
        for name, error in list(errors.items())[:_WORST]
    ]
    text = "Relative error of those tensors that lost most, in or outside of layers."
    whole = table("Tensors with the largest relative errors", ["Tensor", "", "Error", "Type"], rows, [2])
    return figure("Largest errors", text, whole)


def _all(output: Output) -> Markup:
    """The table of all tensors."""
    is_weighted = any(t.weighted is not None for t in output.tensors)
    heads = ["Tensor", "Shape", "Stored as", "Written as", "Bits", "Bytes", "Error", "Weighted error", "Reason"]
    rows = []
    for t in output.tensors:
        shape = " × ".join(map(str, t.shape)) or "1"
        errors = [_share(t.error), _share(t.weighted)]
        rows.append([t.name, shape, t.source_type, t.type, number(t.bits), f"{t.n_bytes:,}", *errors, t.reason])
    if not is_weighted:
        heads, rows = [*heads[:7], heads[8]], [[*row[:7], row[8]] for row in rows]
    whole = table("Every tensor, in the order of the file", heads, rows, [4, 5, 6, 7] if is_weighted else [4, 5, 6])
    text = "Errors are relative: ‖written − source‖ ÷ ‖source‖, on a sample of rows of the finished file."
    return figure("All tensors", text, folded(f"Show {len(rows)} tensors", whole))


def _share(error: float | None) -> str:
    return "–" if error is None else percent(error, 3)


def count(n: int) -> str:
    """A number of weights, in powers of 1000.

    >>> count(9408), count(6_233_088), count(70_553_706_496)
    ('9.4 K', '6.2 M', '70.6 B')
    """
    x = float(n)
    for unit in ("", " K", " M"):
        if x < 1000:
            return f"{x:.1f}{unit}" if unit else str(n)
        x /= 1000
    return f"{x:.1f} B"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    return f"{minutes} min {int(seconds) % 60:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
