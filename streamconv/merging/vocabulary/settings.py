"""What a recipe asks of a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class TokenRule:
    """One entry of ``tokenizer.tokens``: the row of a token in the models that have no own row for it.

    Attributes
    ----------
    kind : ``default``: the usual rule (only ``force`` was given); ``model``: that model's row of the same token;
        ``model_token``: the row of another token of that model, named by exactly one of ``token`` and ``token_id``;
        ``zero``: zeros
    model : reference, for ``model`` and ``model_token``
    force : all models take this row, also those that have the token
    """

    kind: Literal["default", "model", "model_token", "zero"] = "default"
    model: str | None = None
    token: str | None = None
    token_id: int | None = None
    force: bool = False


@dataclass(frozen=True)
class VocabularySettings:
    """What a recipe says about tokenizer and chat template; checked for unknown keys and types, not for meaning.

    Attributes
    ----------
    source : ``union``, ``base`` or a model reference; None: only the chat template is to change
    tokens : token -> rule
    pad_to_multiple_of : the number of rows is rounded up to it; None: not below the base's rows
    chat_template : ``auto``, the name of a builtin template, or Jinja text; None: as the tokenizer has it
    """

    source: str | None = None
    tokens: Mapping[str, TokenRule] = field(default_factory=dict)
    pad_to_multiple_of: int | None = None
    chat_template: str | None = None
