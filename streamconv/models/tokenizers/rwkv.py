"""The vocabulary of RWKV's world: lines of an id, a Python literal of text or bytes, and its length in bytes."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import BadInput
from .files import TokenizerFiles
from .vocabulary import TokenType, Vocabulary, check_room, token_count

MODEL = "rwkv_vocab_v20230424.txt"


def read_rwkv(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, _pre: str | None) -> Vocabulary:
    """The vocabulary of rwkv_vocab_v20230424.txt; tokens are written as Python spells their bytes, as runtimes expect.

    Raises
    ------
    BadInput : the file is damaged or has more tokens than the model
    """
    path = files.called(MODEL)
    tokens = dict(
        _token(line, n, path) for n, line in enumerate((files.text(MODEL) or "").splitlines(), 1) if line.strip()
    )
    needed = max(tokens, default=0) + 1
    n_tokens = token_count(config, size, needed, "vocab_size")
    check_room(path, needed, n_tokens)
    vocabulary = Vocabulary.empty("rwkv", "", str(path), n_tokens)
    vocabulary.put(0, "<s>", TokenType.CONTROL)
    for index, token in tokens.items():
        vocabulary.put(index, repr(token)[2:-1], TokenType.NORMAL)
    return vocabulary


def _token(line: str, number: int, path: Path) -> tuple[int, bytes]:
    head, _, rest = line.strip().partition(" ")
    literal, _, length = rest.rpartition(" ")
    try:
        found = ast.literal_eval(literal) if len(literal) < 4096 else None
        token = found.encode() if isinstance(found, str) else found
        if not isinstance(token, bytes) or len(token) != int(length) or int(head) < 1:
            raise ValueError
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise BadInput(f"{path}: line {number} is not an id, a text or bytes, and their length") from None
    return int(head), token
