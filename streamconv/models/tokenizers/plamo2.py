"""PLaMo 2's vocabulary: a line of JSON for each token, its score and its type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import BadInput
from ...sources.hostile_json import NotJson, parse_json
from .files import TokenizerFiles
from .vocabulary import TokenType, Vocabulary, check_room, token_count

MODEL = "tokenizer.jsonl"
_KINDS = {"UNKNOWN": TokenType.UNKNOWN, "CONTROL": TokenType.CONTROL, "BYTE": TokenType.BYTE}


def read_plamo2(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, _pre: str | None) -> Vocabulary:
    """The vocabulary of tokenizer.jsonl.

    Raises
    ------
    BadInput : the file is damaged or has more tokens than the model
    """
    path = files.called(MODEL)
    rows = [
        _row(line, f"{path}: line {n}")
        for n, line in enumerate((files.bytes(MODEL) or b"").split(b"\n"), 1)
        if line.strip()
    ]
    n_tokens = token_count(config, size, len(rows), "vocab_size")
    check_room(path, len(rows), n_tokens)
    vocabulary = Vocabulary.empty("plamo2", "default", str(path), n_tokens, -1000.0)
    for index, (text, score, kind) in enumerate(rows):
        mark = text.startswith("<|plamo:") and text.endswith("|>")
        found = _KINDS.get(kind, TokenType.CONTROL if mark else TokenType.NORMAL)
        vocabulary.put(index, text, found, score)
    for n, index in enumerate(range(len(rows), n_tokens), 1):
        vocabulary.put(index, f"[PAD{n}]", TokenType.UNUSED)
    vocabulary.more.u32("tokenizer.ggml.eot_token_id", 4)
    vocabulary.more.boolean("tokenizer.ggml.add_space_prefix", False)
    return vocabulary


def _row(line: bytes, where: str) -> tuple[str, float, str]:
    try:
        row = parse_json(line)
    except NotJson as e:
        raise BadInput(f"{where} {e}") from None
    if not (isinstance(row, list) and len(row) >= 3 and isinstance(row[0], str) and isinstance(row[1], (int, float))):
        raise BadInput(f"{where} is not a token, its score and its type")
    return row[0], float(row[1]), str(row[2])
