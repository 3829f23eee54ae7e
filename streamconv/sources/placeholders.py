"""What may lie in the place of a file: a pointer of Git LFS, a page of the web, a text that a server sent, nothing at all.

Readers ask before they parse, so that a message names what is there and not where parsing it failed.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import BadInput
from .naming import shown
from .side_links import is_needed

#: bytes that tell
HEAD_BYTES = 512
_LFS = (b"version https://git-lfs", b"version https://hawser", b"# xet version")
_LFS_SIZE = re.compile(rb"^size (\d{1,15})$", re.MULTILINE)
#: what a browser is sent, and the errors of object stores
_PAGE = re.compile(rb"\s*(<!doctype html|<html[\s>]|(<\?xml[^>]*>\s*)?<(!doctype html|html|error)[\s>])", re.IGNORECASE)
#: endings of files that may be pages
_MAY_BE_PAGES = ("", ".md", ".html", ".htm", ".xml")
#: programs that are empty, and templates, mean something
_MAY_BE_EMPTY = (".py", ".jinja")
#: first bytes of other containers -> what they are
_OTHERS = {
    b"GGUF": "a GGUF file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    **dict.fromkeys((b"lmgg", b"fmgg", b"tjgg"), "a GGML file of before GGUF, which is converted by llama.cpp of 2023"),
    b"\x89HDF": "an HDF5 file, as Keras writes them",
}
#: characters; fewer bytes may look like a text by chance
_SHORTEST_TEXT = 8
_FETCH = "Fetch the file itself again."


def refuse_placeholder(path: Path, data: bytes) -> None:
    """BadInput when the small file ``path``, which holds ``data``, is not the file that its name promises."""
    if not data and is_needed(path.name) and path.suffix not in _MAY_BE_EMPTY:
        raise BadInput(f"{path} is empty (0 bytes)", _FETCH)
    _refuse_pointer(path, data[:HEAD_BYTES])
    if path.suffix not in _MAY_BE_PAGES:
        _refuse_page(path, data[:HEAD_BYTES])


def refuse_no_weights(path: Path, head: bytes) -> None:
    """BadInput when a weight file that begins with ``head`` (up to ``HEAD_BYTES``) is not one, whatever container it should be."""
    if not head:
        raise BadInput(f"{path} is truncated: it is empty (0 bytes)", _FETCH)
    _refuse_pointer(path, head)
    _refuse_page(path, head)
    text = _text(head)
    if len(text) >= _SHORTEST_TEXT:
        raise BadInput(f"{path} contains text and no weights; it begins with {shown(text)}", _FETCH)


def other_container(head: bytes) -> str:
    """What a file that begins so is, for readers that cannot read it; "" where that is not known."""
    return next((what for magic, what in _OTHERS.items() if head.startswith(magic)), "")


def _refuse_pointer(path: Path, head: bytes) -> None:
    if head.startswith(_LFS):
        size = _LFS_SIZE.search(head)
        of = f", which has {int(size[1]):,} bytes" if size else ""
        raise BadInput(
            f"{path} is a pointer of Git LFS, not the file itself{of}",
            "Fetch it with `git lfs pull` in that folder, or download the model again.",
        )


def _refuse_page(path: Path, head: bytes) -> None:
    if _PAGE.match(head.removeprefix(b"\xef\xbb\xbf")):
        raise BadInput(
            f"{path} is a web page (HTML or XML), not the file itself",
            f"A login, an error or a page about the file was saved in its place. {_FETCH}",
        )


def _text(head: bytes) -> str:
    """``head`` as text; "" where it is not text."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as e:
        if len(head) < HEAD_BYTES or e.start < HEAD_BYTES - 3:
            return ""
        text = head[: e.start].decode("utf-8")
    return text.strip() if all(c.isprintable() or c in "\t\r\n" for c in text) else ""
