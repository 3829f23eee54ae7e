"""The text that importance matrices are made with where none is given.

It was written for this project and copied from nowhere: prose, letters, news, dialogues and explanations in English, code and data
in a dozen notations, turns of chats as plain text, and paragraphs in fifteen other languages. It is part of streamconv and under
its licence, Apache-2.0; the text alone may also be used under CC0 1.0, that is, without conditions.
``data/calibration.txt`` in the repository is the same text to read.
"""

from __future__ import annotations

import lzma
from importlib.resources import files

#: how messages and files call it
NAME = "streamconv's own calibration text"


def default_text() -> bytes:
    """The text in UTF-8: more than 20,480 tokens of vocabularies in use, and none of their control tokens."""
    return lzma.decompress(files(__package__).joinpath("data/calibration.xz").read_bytes())
