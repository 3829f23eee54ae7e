"""The one place where text goes out to a terminal.

Names of tensors, paths, texts of files and answers of servers are in nearly every line. A terminal acts on some characters
instead of showing them: it can be told to hide a line, to turn text around, or to type. So callers pass
lines, and each leaves here as one line of characters that are only shown.
"""

from __future__ import annotations

import json
import sys
import traceback
import unicodedata
from contextlib import suppress
from types import TracebackType
from typing import Any, TextIO


def plain(text: str) -> str:
    """``text`` with every character escaped that is not shown as itself: controls, ends of lines, what turns text around.

    >>> plain("blk.0.größe"), plain("a\\x1b[2Jb\\n"), plain("\\u202egpj.exe")
    ('blk.0.größe', 'a\\\\x1b[2Jb\\\\n', '\\\\u202egpj.exe')
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else repr(c)[1:-1] for c in text)


def say(*lines: str, stream: TextIO | None = None) -> None:
    """Print each of ``lines`` as one line, on standard output unless ``stream`` is given."""
    print("\n".join(map(plain, lines)), file=stream or sys.stdout, flush=True)


def say_json(value: Any, indent: int | None = None, stream: TextIO | None = None) -> None:
    """Print ``value`` as JSON, which escapes by itself."""
    print(json.dumps(value, indent=indent), file=stream or sys.stdout, flush=True)


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What Python prints of an error, for ``--debug``, escaped like everything else."""
    with suppress(OSError):
        for part in traceback.format_exception(kind, error, trace):
            is_ours = part.startswith((" ", "\n", "Traceback"))  # else it is what the error says
            say(*(part.rstrip("\n").split("\n") if is_ours else [part.rstrip("\n")]), stream=sys.stderr)
