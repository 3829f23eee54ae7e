"""Figures over the depth of a model: the type of every matrix, and a number of every matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from .depth import Depth
from .markup import Markup, tag
from .numbers import number
from .page import figure, keys, swatch
from .plots import dots, grid, plot, polyline, stretched
from .scales import Scale, fitting, within

#: shades of cells
_SHADES = 6


class Typed(Protocol):
    """A tensor with a type."""

    @property
    def name(self) -> str:
        """Of the tensor."""

    @property
    def shape(self) -> Sequence[int]:
        """Slowest dimension first."""

    @property
    def type(self) -> str:
        """How it is written."""

    @property
    def n_bytes(self) -> int:
        """Of it."""


T = TypeVar("T", bound=Typed)


def type_map(title: str, depth: Depth[T], bits_of: Callable[[T], float]) -> Markup:
    """A figure of the type that every matrix in a layer has; the stronger the colour, the more bits."""
    cells: dict[str, dict[int, tuple[str, str]]] = {}
    chosen = {
        (kind, layer): max(found, key=lambda t: (sum(o.n_bytes for o in found if o.type == t.type), t.type))
        for kind, layers in depth.kinds.items()
        for layer, found in layers.items()
    }
    bits: dict[str, float] = {}
    for tensor in chosen.values():
        bits[tensor.type] = max(bits.get(tensor.type, 0.0), bits_of(tensor))
    order = sorted(bits, key=lambda name: (bits[name], name))
    shades = {name: f"s{round(k * (_SHADES - 1) / max(1, len(order) - 1))}" for k, name in enumerate(order)}
    if len(order) == 1:
        shades = {order[0]: "s2"}
    for (kind, layer), tensor in chosen.items():
        n = len(depth.kinds[kind][layer])
        more = f", {n} tensors" if n > 1 else ""
        told = f"layer {layer}, {kind}: {tensor.type}, {number(bits_of(tensor))} bits per weight{more}"
        cells.setdefault(kind, {})[layer] = shades[tensor.type], told
    legend = keys(*((swatch(f"cell {shades[name]}"), f"{name}, {number(bits[name])} bits") for name in order))
    counts = {name: sum(t.type == name for t in chosen.values()) for name in order}
    told = f"{title}: " + ", ".join(f"{counts[name]} matrices in {name}" for name in order)
    text = "Each cell is a matrix of a layer; the stronger its colour, the more bits per weight."
    return figure(title, text, legend, grid(_layers(depth), cells, told=told, x_name="layer"))


def number_by_layer(
    title: str,
    text: object,
    depth: Depth[T],
    value_of: Callable[[T], float | None],
    label: Callable[[float], str],
    name: str,
) -> Markup:
    """A small plot for every kind of matrix: a number over the layers, with those of the other kinds behind it.

    ``name`` is that of what is drawn behind, and of no other element of the page.
    """
    series = {kind: _series(layers, value_of) for kind, layers in depth.kinds.items()}
    series = {kind: points for kind, points in series.items() if points}
    if not series:
        return Markup("")
    x, y = _layers(depth, 3), fitting([v for points in series.values() for _, v in points], label)
    # It is in the page once, however many plots it lies behind.
    behind = Markup("".join(polyline(x, y, points, "faint") for points in series.values()))
    shared = tag("symbol", behind, id=name, viewBox="0 0 1000 1000", preserveAspectRatio="none")
    drawn = [_small(kind, points, x, y, name, f"{title}, {kind}", label) for kind, points in series.items()]
    hidden = tag("svg", shared, width=0, height=0, aria_hidden="true", style="position:absolute")
    return figure(title, text, hidden, tag("div", *drawn, class_="small-plots"))


def _small(
    kind: str,
    points: Sequence[tuple[int, float]],
    x: Scale,
    y: Scale,
    behind: str,
    what: str,
    label: Callable[[float], str],
) -> Markup:
    values = [v for _, v in points]
    told = f"{what}: layers {points[0][0]} to {points[-1][0]}, from {label(min(values))} to {label(max(values))}"
    titles = [f"layer {layer}: {label(value)}" for layer, value in points]
    marks = [
        tag("use", href=f"#{behind}", width="100%", height="100%"),
        stretched(polyline(x, y, points, "line")),
        dots(x, y, points, titles, radius=1.5 if len(points) > 40 else 2.5),
    ]
    return tag("div", tag("h4", kind), plot(x, y, *marks, told=told, height=96, small=True))


def _series(layers: Mapping[int, Sequence[T]], value_of: Callable[[T], float | None]) -> list[tuple[int, float]]:
    """Of every layer the mean over its tensors of that kind."""
    found = []
    for layer in sorted(layers):
        values = [v for v in map(value_of, layers[layer]) if v is not None]
        if values:
            found.append((layer, sum(values) / len(values)))
    return found


def _layers(depth: Depth[T], n_ticks: int = 6) -> Scale:
    """The axis of the layers."""
    first, last = depth.layers
    return within(first - 0.5, last + 0.5, n_ticks)
