"""Builds HTML and SVG: whatever is text is escaped on its way in."""

from __future__ import annotations

import html

from ..terminal import plain


class Markup(str):
    """Markup that goes into a page without being escaped again."""

    __slots__ = ()

    def __add__(self, other: str) -> Markup:
        return Markup(str(self) + str(escaped(other)))


def escaped(text: object) -> Markup:
    """``text`` as it is shown: names of files and tensors may hold anything, half of a character and controls too.

    >>> escaped('<a href="x">\\x00 &')
    '&lt;a href=&quot;x&quot;&gt;\\\\x00 &amp;'
    """
    return text if isinstance(text, Markup) else Markup(html.escape(plain(str(text))))


def tag(name: str, /, *inside: object, **attributes: object) -> Markup:
    """An element; of attributes ``class_`` is ``class`` and ``text_anchor`` is ``text-anchor``, and those of None are left out.

    >>> tag("p", "a < b", tag("br"), class_="note")
    '<p class="note">a &lt; b<br></p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(v)}"' for key, v in attributes.items() if v is not None
    )
    body = "".join(map(escaped, inside))
    return Markup(f"<{name}{given}>" + (body if name in _VOID else f"{body}</{name}>"))


#: elements that have no end
_VOID = ("br", "meta")


def joined(parts: object) -> Markup:
    """All of ``parts``, an iterable, one after the other."""
    return Markup("".join(map(escaped, parts)))  # type: ignore[call-overload]
