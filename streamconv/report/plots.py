"""Plots as SVG whose marks lie at shares of its width: they fit any width, and their texts keep their size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .markup import Markup, joined, tag
from .scales import Scale

#: of the inner coordinates of lines
_UNITS = 1000
#: pixels of a letter in labels, about
_LETTER = 6.6
_LONGEST = 22

Points = Sequence[tuple[float, float]]


def at(share: float) -> str:
    """A place as a share of the width or height, from 0 to 1.

    >>> at(1 / 3)
    '33.333%'
    """
    return f"{round(100 * share, 3):g}%"


def plot(
    x: Scale,
    y: Scale,
    *marks: object,
    told: str,
    x_name: str = "",
    y_name: str = "",
    height: int = 220,
    small: bool = False,
) -> Markup:
    """Axes around ``marks``; ``told`` says in words what is seen."""
    grid = joined(
        tag("line", x1=0, x2="100%", y1=at(1 - y.at(t)), y2=at(1 - y.at(t)), class_="base" if t == y.low else "grid")
        for t in y.ticks
    )
    y_labels = joined(tag("text", y.label(t), x=-8, y=at(1 - y.at(t)), dy="0.34em", text_anchor="end") for t in y.ticks)
    x_labels = joined(
        tag("line", x1=at(x.at(t)), x2=at(x.at(t)), y1="100%", y2="100%", class_="tick")
        + tag("text", x.label(t), x=at(x.at(t)), y="100%", dy=18, text_anchor="middle")
        for t in x.ticks
    )
    names = joined(
        tag("text", name, x=place, y=level, dy=shift, text_anchor=anchor, class_="name")
        for name, place, level, shift, anchor in (
            (y_name, -8 if small else 0, 0, -12, "start"), (x_name, "100%", "100%", 36, "end"),
        )
        if name
    )  # fmt: skip
    return tag(
        "svg", grid, *marks, y_labels, x_labels, names, class_="plot small" if small else "plot", height=height, role="img",
        aria_label=told,
    )  # fmt: skip


def line(x: Scale, y: Scale, points: Points, class_: str) -> Markup:
    """A line through ``points``."""
    return stretched(polyline(x, y, points, class_))


def stretched(*lines: Markup) -> Markup:
    """Lines that are given in thousandths, over the whole plot."""
    return tag("svg", *lines, viewBox=f"0 0 {_UNITS} {_UNITS}", preserveAspectRatio="none", width="100%", height="100%")


def polyline(x: Scale, y: Scale, points: Points, class_: str) -> Markup:
    """A line in thousandths, for ``stretched``."""
    places = " ".join(f"{round(_UNITS * x.at(a), 1):g},{round(_UNITS * (1 - y.at(b)), 1):g}" for a, b in points)
    return tag("polyline", points=places, class_=class_, vector_effect="non-scaling-stroke")


def dots(x: Scale, y: Scale, points: Points, titles: Sequence[str], class_: str = "dot", radius: float = 2.5) -> Markup:
    """A dot at each of ``points``, with a text that shows when it is pointed at."""
    return joined(
        tag("circle", tag("title", title), cx=at(x.at(a)), cy=at(1 - y.at(b)), r=radius, class_=class_)
        for (a, b), title in zip(points, titles, strict=True)
    )


def bars(x: Scale, y: Scale, edges: Sequence[float], heights: Sequence[float], titles: Sequence[str]) -> Markup:
    """Bars from edge to edge, a histogram."""
    found = []
    for a, b, h, title in zip(edges, edges[1:], heights, titles, strict=False):
        left, right = x.at(a), x.at(b)
        shape = {"x": at(left), "width": at(right - left), "y": at(1 - y.at(h)), "height": at(y.at(h))}
        found += [tag("rect", tag("title", title), class_="bar", **shape)] if h > 0 else []
    return joined(found)


def upright(x: Scale, marked: Iterable[tuple[str, float]]) -> Markup:
    """Values on the x axis with their names one below the other, on the side where there is more room."""
    rising = sorted(marked, key=lambda each: each[1])
    is_right = sum(x.at(value) for _, value in rising) > 0.5 * len(rising)
    shift, anchor = (-6, "end") if is_right else (6, "start")
    found = []
    # In this order no name lies over the line of another value.
    for number, (name, value) in enumerate(reversed(rising) if is_right else rising):
        place, level = at(x.at(value)), 12 + 16 * number
        found += [
            tag("line", x1=place, x2=place, y1=level - 10, y2="100%", class_="mark"),
            tag("text", name, x=place, dx=shift, y=level, text_anchor=anchor, class_="told"),
        ]
    return joined(found)


def grid(
    x: Scale, rows: Mapping[str, Mapping[int, tuple[str, str]]], *, told: str, x_name: str, row_height: int = 20
) -> Markup:
    """Cells in rows: for every row and column a class and a text that shows when it is pointed at."""
    labels = [_clipped(name) for name in rows]
    width = 1 / (x.high - x.low)
    parts = []
    for number, (label, cells) in enumerate(zip(labels, rows.values(), strict=True)):
        top = number * row_height
        parts.append(tag("text", label, x=-8, y=top + row_height / 2, dy="0.34em", text_anchor="end"))
        parts += [
            tag("rect", tag("title", title), x=at(x.at(column - 0.5)), width=at(width), y=top + 1, height=row_height - 2,
                class_=f"cell {class_}")
            for column, (class_, title) in cells.items()
        ]  # fmt: skip
    height = row_height * len(rows)
    parts += _under(x, height, x_name)
    style = _beside(_margin(labels))
    return tag("svg", *parts, class_="plot map", height=height, style=style, role="img", aria_label=told)


def rows_of_dots(
    x: Scale, rows: Sequence[tuple[str, float, float]], *, told: str, x_name: str, row_height: int = 30
) -> Markup:
    """A dot in a row for every name, value and half of the width of its whisker."""
    labels = [_clipped(name) for name, _, _ in rows]
    height = row_height * len(rows)
    margin = _margin(labels)
    parts = [tag("line", x1=at(x.at(t)), x2=at(x.at(t)), y1=0, y2=height, class_="grid") for t in x.ticks]
    for number, (label, (name, value, half)) in enumerate(zip(labels, rows, strict=True)):
        y = row_height * (number + 0.5)
        parts += [
            tag("text", label, x=-10, y=y, dy="0.34em", text_anchor="end", class_="told"),
            tag("line", x1=at(x.at(value - half)), x2=at(x.at(value + half)), y1=y, y2=y, class_="whisker"),
            tag("circle", tag("title", f"{name}: {x.label(value)}"), cx=at(x.at(value)), cy=y, r=4.5, class_="dot"),
        ]
    parts += _under(x, height, x_name)
    return tag("svg", *parts, class_="plot map", height=height, style=_beside(margin), role="img", aria_label=told)


def _margin(labels: Sequence[str]) -> int:
    """Pixels that labels of rows need."""
    return int(_LETTER * max(map(len, labels), default=0)) + 14


def _beside(margin: int) -> str:
    return f"margin-left:{margin}px;width:calc(100% - {margin + 12}px)"


def _under(x: Scale, height: float, name: str) -> list[Markup]:
    """The labels of an x axis ``height`` pixels down."""
    found = [tag("text", x.label(t), x=at(x.at(t)), y=height, dy=18, text_anchor="middle") for t in x.ticks]
    return [*found, tag("text", name, x="100%", y=height, dy=36, text_anchor="end", class_="name")]


def _clipped(name: str) -> str:
    """The end of a name that is too long for a label."""
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"
