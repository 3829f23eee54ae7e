"""The seam between recipes and vocabularies: what a recipe asks of a tokenizer, and what a plan answers.

The core of this package parses the recipe into ``VocabularySettings`` and calls

    vocabulary.plan_vocabulary(settings, models, base, only_named) -> VocabularyPlan

settings : VocabularySettings
models   : reference -> opened checkpoint, of every model the recipe names, in the order of the recipe (those that only
           the settings name come last); adapters are applied already. References are the keys everywhere.
base     : reference of ``base_model``, or None; without one the tokenizer of the first of ``models`` takes its place.
only_named : those of ``models`` that only the settings name: their tokens are no part of a union.

The plan is made from tokenizers, configs and headers; no weight is read. It is asked for when the recipe sets a tokenizer
or a chat template. Errors: UsageError, BadInput, InputMissing with the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ..rows import Rows


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


class VocabularyPlan(Protocol):
    """The merged vocabulary, and how each model's rows are laid out for it."""

    @property
    def size(self) -> int | None:
        """Rows of the merged embedding (``vocab_size`` of the config); None when the vocabulary stays as it is."""

    @property
    def side(self) -> Mapping[str, Path | bytes]:
        """All files of the tokenizer by name, and ``generation_config.json`` where ids in it have moved."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Other keys of config.json to set: ``bos_token_id`` and so on where the new tokenizer moved them."""

    @property
    def warnings(self) -> Sequence[str]:
        """What the user should know."""

    def embed(self, rows: Mapping[str, Rows], name: str) -> dict[str, Rows]:
        """The same tensor of every model, laid out for the merged vocabulary.

        Called only when ``size`` is not None, for every tensor whose first axis is the vocabulary (embedding, head, and
        output biases, which are vectors: one row, a column for each token).

        Parameters
        ----------
        rows : reference -> the tensor of the models that take part and physically have it. Shapes differ in the first
            axis only; dtypes may differ.
        name : of the output tensor, for messages and to find the tensor in models that only a rule names

        Returns
        -------
        dict : the same keys; shape ``(size, ...)``, each with a dtype that holds every row it may hand out
        """
