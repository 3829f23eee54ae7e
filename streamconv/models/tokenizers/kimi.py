"""Kimi's vocabularies: ranks of tiktoken, and behind them 256 places of which tokenizer_config.json names some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .files import TokenizerFiles
from .tiktoken import declared, read_tiktoken
from .vocabulary import Vocabulary

MODEL = "tiktoken.model"


def read_kimi(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, pre: str | None) -> Vocabulary:
    """The vocabulary of Kimi K2, whose code names every place. Errors as ``read_tiktoken``."""
    named = {token.id: token.text for token in files.declared_tokens}

    def specials(n_ranks: int) -> list[str | None]:
        return [named.get(n, f"<|reserved_token_{n}|>") for n in range(n_ranks, n_ranks + 256)]

    return read_tiktoken(files, config, size, MODEL, specials, pre or "kimi-k2")


def read_kimi_linear(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, pre: str | None) -> Vocabulary:
    """The vocabulary of Kimi Linear, whose code leaves gaps. Errors as ``read_tiktoken``."""
    return read_tiktoken(files, config, size, MODEL, declared(files), pre or "kimi-k2")
