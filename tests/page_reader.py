"""Reads a page of a report as a browser does, and refuses what a browser would only mend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

_VOID = {"meta", "br"}
#: attributes by which a page makes a browser load something
_LOADING = {"src", "srcset", "data", "poster", "action", "formaction", "background", "ping", "xlink:href"}


@dataclass
class Element:
    """An element with what is in it."""

    name: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def all(self, name: str) -> list[Element]:
        """Every element of that name below it."""
        found = [child for child in self.children if child.name == name]
        return [*found, *(e for child in self.children for e in child.all(name))]

    @property
    def text(self) -> str:
        """All text in it."""
        return "".join(self.texts)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        assert all(value is not None for _, value in attrs), (tag, attrs)
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.ids += [element.attributes["id"]] if "id" in element.attributes else []
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> ends <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.texts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data}")


def read_page(text: str) -> Element:
    """The body of a page, once it is sure that it is well formed and stands by itself."""
    assert text.startswith("<!doctype html>\n<html lang=")
    assert text.isascii() or text.encode().decode() == text
    parser = _Parser()
    parser.feed(text)
    parser.close()
    assert parser.open == [parser.root], [e.name for e in parser.open]
    assert len(set(parser.ids)) == len(parser.ids), sorted(parser.ids)
    (html,) = parser.root.children
    head, body = html.children
    elements = [*(e for name in _names(html) for e in html.all(name))]
    assert not {e.name for e in elements} & {"script", "link", "img", "iframe", "object", "embed", "base", "image"}
    for e in elements:
        assert not e.attributes.keys() & _LOADING, (e.name, e.attributes)
        assert not any(name.startswith("on") for name in e.attributes), (e.name, e.attributes)
        if "href" in e.attributes:
            assert e.attributes["href"].removeprefix("#") in parser.ids, e.attributes
        if e.name == "svg" and e.attributes.get("role") == "img":
            assert e.attributes["aria-label"]
        if e.name == "table":
            assert e.all("caption")[0].text
            assert len({len(row.children) for row in e.all("tr")}) == 1
        numbers = [v for k, v in e.attributes.items() if k in ("x", "y", "width", "height", "cx", "cy", "points", "r")]
        assert not any("nan" in v or "inf" in v for v in numbers), (e.name, e.attributes)
    levels = [int(e.name[1]) for e in _in_order(body) if e.name in ("h1", "h2", "h3", "h4")]
    assert all(b <= a + 1 for a, b in pairwise(levels)), levels
    style = head.all("style")[0].text
    assert not re.search(r"url\(|@import|</", style)
    policy = [e.attributes.get("content", "") for e in head.all("meta") if "http-equiv" in e.attributes]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert [e.text for e in body.all("h1")] == [head.all("title")[0].text]
    return body


def _names(element: Element) -> set[str]:
    return {child.name for child in element.children} | {n for child in element.children for n in _names(child)}


def _in_order(element: Element) -> Iterator[Element]:
    for child in element.children:
        yield child
        yield from _in_order(child)


def rows(body: Element, caption: str) -> list[dict[str, str]]:
    """The rows of all tables with that caption: what is in each column by its heading."""
    found = []
    for table in body.all("table"):
        if table.all("caption")[0].text == caption:
            heads = [cell.text for cell in table.all("thead")[0].all("tr")[0].children]
            body_rows = table.all("tbody")[0].all("tr")
            found += [dict(zip(heads, (cell.text for cell in row.children), strict=True)) for row in body_rows]
    return found


def facts(body: Element) -> dict[str, str]:
    """The main numbers, the first of each name."""
    found: dict[str, str] = {}
    for each in body.all("dl"):
        for pair in each.children:
            name, value = pair.children
            found.setdefault(name.text, value.text)
    return found


def value(text: str) -> float:
    """The number that a text begins with, as pages write them: ``0.021 ± 0.001``, ``(8.7 ± 0.1) × 10⁻⁵``, ``7.0 %``."""
    plain = text.translate(str.maketrans("−⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "--0123456789"))
    mantissa, _, exponent = plain.removesuffix(" %").partition(" × 10")
    return float(mantissa.strip("()").split(" ± ")[0]) * 10.0 ** int(exponent or 0)
