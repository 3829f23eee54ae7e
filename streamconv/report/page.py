"""What all pages have: the frame, headings, figures, tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files

from .markup import Markup, escaped, joined, tag

#: every page begins so, by which an older one is known again
START = '<!doctype html>\n<html lang="en" data-made-by="streamconv report">'
#: nothing is loaded, whatever a name in the page pretends to be
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def is_page(start: bytes) -> bool:
    """Whether a file that begins with ``start``, at least as long as ``START``, is a page made here."""
    return start.startswith(START.encode())


@cache
def _style() -> Markup:
    return Markup(files(__package__).joinpath("style.css").read_text("utf-8").strip())


def page(title: str, lead: object, *body: object, version: str = "") -> str:
    """A whole page under the heading ``title``."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", title),
        tag("style", _style()),
    )
    made = f"Made by streamconv {version}".rstrip() + ". The page holds all that it shows and loads nothing."
    content = tag(
        "body",
        tag("header", tag("h1", title), tag("p", lead, class_="lead")),
        # For readers who go by headings: those of figures are of the third level.
        tag("main", tag("h2", "Overview", class_="unseen"), *body),
        tag("footer", tag("p", made)),
    )
    return f"{START}\n{head}\n{content}\n</html>\n"


def facts(*told: tuple[str, str, str]) -> Markup:
    """The main numbers: what each is, the number, and what belongs to it."""
    return tag(
        "dl",
        *(
            tag("div", tag("dt", name), tag("dd", value, tag("small", more) if more else ""))
            for name, value, more in told
        ),
        class_="facts",
    )


def figure(title: str, text: object, *content: object) -> Markup:
    """A plot or table with its heading and what there is to say of it."""
    return tag("figure", tag("figcaption", tag("h3", title), tag("p", text)), *content)


def table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]], numbers: int | Sequence[int] = ()
) -> Markup:
    """A table; the first column names the rows, and the ``numbers`` of columns are set to the right."""
    right = {numbers} if isinstance(numbers, int) else set(numbers)

    def cells(name: str, row: Sequence[object], scope: str | None) -> Markup:
        return tag("tr", *(
            tag(name if scope == "col" or k else "th", cell, class_="n" if k in right else None,
                scope=scope if scope == "col" else (None if k else "row"))
            for k, cell in enumerate(row)
        ))  # fmt: skip

    body = joined(cells("td", row, None) + Markup("\n") for row in rows)
    return tag(
        "div",
        tag("table", tag("caption", caption), tag("thead", cells("th", heads, "col")), tag("tbody", body)),
        class_="scroll",
        role="region",
        aria_label=caption,
        tabindex=0,
    )


def section(title: str, name: str) -> Markup:
    """The heading of one of several parts of a page, which links lead to."""
    return tag("h2", title, id=name)


def folded(summary: str, *content: object) -> Markup:
    """What is shown when it is asked for."""
    return tag("details", tag("summary", summary), *content)


def keys(*known: tuple[Markup, str]) -> Markup:
    """What marks mean."""
    return tag("ul", *(tag("li", mark, text) for mark, text in known), class_="keys")


def swatch(class_: str) -> Markup:
    """A mark of a key, as cells are filled."""
    return tag("svg", tag("rect", width="100%", height="100%", class_=class_), aria_hidden="true")


def stroke(class_: str) -> Markup:
    """A mark of a key, as lines are drawn."""
    return tag("svg", tag("line", x1=0, x2="100%", y1="50%", y2="50%", class_=class_), aria_hidden="true")


def disc(class_: str) -> Markup:
    """A mark of a key, as dots are."""
    return tag("svg", tag("circle", cx="50%", cy="50%", r=4.5, class_=class_), aria_hidden="true")


def share(part: float) -> Markup:
    """A bar over ``part`` of its cell, from 0 to 1."""
    bar = tag("rect", width=f"{round(100 * part, 2):g}%", height="100%")
    return tag("svg", bar, class_="share", aria_hidden="true")


def notes(texts: Sequence[str]) -> Markup:
    """What else is to be known; nothing where there is nothing."""
    return tag("ul", *(tag("li", text) for text in texts), class_="notes") if texts else escaped("")


def base_name(path: str) -> str:
    """The last part of ``path``.

    >>> base_name("models/x.gguf"), base_name("models/"), base_name("/")
    ('x.gguf', 'models', '/')
    """
    return path.rstrip("/").rpartition("/")[2] or path


def base_names(paths: Sequence[str]) -> list[str]:
    """The last parts of ``paths``, or all of them where two would be the same.

    >>> base_names(["a/x", "b/y"]), base_names(["a/x", "b/x"])
    (['x', 'y'], ['a/x', 'b/x'])
    """
    names = [*map(base_name, paths)]
    return names if len(set(names)) == len(names) else [*paths]
