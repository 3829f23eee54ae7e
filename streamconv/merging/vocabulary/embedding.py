"""Where every row of the output's embedding comes from, for each model.

A token's row in a model is the model's own, if it has one. Otherwise it is the token's default row: the one a rule names; else
that of the only model which has the token; else the base's; else the mean over the models that have it; zeros if none does.
Source: mergekit's documentation of its tokenizer settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import BadInput
from ...kit import Reshaped
from ...rows import Rows
from ..inputs import common_dtype
from .rows import MEAN, SOME, ZERO, Places, Table, laid_out
from .settings import TokenRule
from .tokens import Tokens

Flags = NDArray[np.bool_]


class Embedder:
    """Lays vocabulary tensors out.

    Parameters
    ----------
    output : text -> id of the merged vocabulary
    size : rows of the output
    padded : rows beyond the tokens are the mean of the others; else those of the model, where it has them
    tokens : reference -> tokens of the model
    rules : text -> rule
    base : whose row counts where several models have one; None: their mean
    first : the model whose padding rows others lack
    tensor : ``(reference, name)`` -> the tensor of that model that stands for ``name``
    fallbacks : references of models whose rows are taken for tokens that no model taking part has
    """

    def __init__(
        self,
        *,
        output: Mapping[str, int],
        size: int,
        padded: bool,
        tokens: Mapping[str, Tokens],
        rules: Mapping[str, TokenRule],
        base: str | None,
        first: str,
        tensor: Callable[[str, str], Rows | None],
        fallbacks: Sequence[str],
    ) -> None:
        self.size = size
        self.warnings: list[str] = []
        self._output = output
        self._padded = padded
        self._rules = rules
        self._base = base
        self._first = first
        self._tensor = tensor
        self._fallbacks = fallbacks
        self._is_token = np.zeros(size, np.bool_)
        self._is_token[list(output.values())] = True
        self._own = {name: self._places(each) for name, each in tokens.items()}
        self._unused = {name: self._gaps(each) for name, each in tokens.items()}
        self._ids = {
            rule.model: tokens[rule.model].ids for rule in rules.values() if rule.model is not None
        }  # of other models only the places are kept

    def _places(self, tokens: Tokens) -> Places:
        """Each output token's id in one model, -1 where it has none: int64[size]."""
        found = np.full(self.size, -1, np.int64)
        for text, index in tokens.ids.items():
            at = self._output.get(text)
            if at is not None:
                found[at] = index
        return found

    def _gaps(self, tokens: Tokens) -> Flags:
        """Ids below ``size`` that are no token of the model: bool[size]."""
        found = np.ones(self.size, np.bool_)
        taken = np.fromiter((i for i in tokens.ids.values() if i < self.size), np.int64)
        found[taken] = False
        return found

    def embed(self, rows: Mapping[str, Rows], name: str) -> dict[str, Rows]:
        """The same tensor of every model, laid out for the merged vocabulary.

        Its first axis is the vocabulary, or its only one: an output bias is one row with a column for each token.

        Parameters
        ----------
        rows : reference -> the tensor of the models that take part and physically have it. Shapes differ in the first
            axis only; dtypes may differ.
        name : of the output tensor, for messages and to find the tensor in models that only a rule names

        Returns
        -------
        dict : the same keys; shape ``(size, ...)``, each with a dtype that holds every row it may hand out
        """
        shared = _Shared(self, rows, name)
        return {model: shared.rearranged(model) for model in rows}


class _Shared:
    """One tensor: its sources, and the default rows, which all models share."""

    def __init__(self, embedder: Embedder, rows: Mapping[str, Rows], name: str) -> None:
        self.all = embedder
        self.rows = rows
        self.name = name
        self.models = list(rows)
        self.sources: list[Rows] = list(rows.values())
        self.own = {model: self._own(model, source.shape[0]) for model, source in rows.items()}
        self.which: Places = np.full(embedder.size, ZERO, np.int64)
        self.row: Places = np.zeros(embedder.size, np.int64)
        self.some: dict[int, list[tuple[int, int]]] = {}
        self.forced: list[int] = []
        self._defaults()
        self._rules()
        orphans = np.flatnonzero((self.which == ZERO) & embedder._is_token)
        ruled = {embedder._output[text] for text, rule in embedder._rules.items() if rule.kind == "zero"}
        lost = [int(at) for at in orphans if int(at) not in ruled]
        if lost:
            text = next(text for text, at in embedder._output.items() if at == lost[0])
            embedder.warnings.append(
                f"{name!r}: {len(lost)} tokens such as {text!r} have no row in any of the models; theirs are zero"
            )

    def _own(self, model: str, n_rows: int) -> Places:
        own = self.all._own[model]
        return np.where(own < n_rows, own, -1)

    def _defaults(self) -> None:
        """Default rows that no rule names."""
        have = np.array([self.own[model] >= 0 for model in self.models])
        count = have.sum(axis=0)
        for number in reversed(range(len(self.models))):  # the first model that has a token gives the row, for now
            self._take(have[number], number, self.own[self.models[number]])
        base = next((k for k, model in enumerate(self.models) if model == self.all._base), None)
        several = count > 1
        if base is not None:
            self._take(several & have[base], base, self.own[self.models[base]])
            several &= ~have[base]
        for at in np.flatnonzero(several):
            self.which[at] = SOME
            holders = np.flatnonzero(have[:, at])
            self.some[int(at)] = [(int(k), int(self.own[self.models[k]][at])) for k in holders]
        missing = (count == 0) & self.all._is_token
        for model in self.all._fallbacks:
            if not missing.any():
                return
            source = None if model in self.rows else self._matching(model)
            if source is not None:
                own = self._own(model, source.shape[0])
                found = missing & (own >= 0)
                if found.any():
                    self._take(found, self._number(source), own)
                    missing &= ~found

    def _take(self, where: Flags, number: int, own: Places) -> None:
        self.which[where] = number
        self.row[where] = own[where]

    def _number(self, source: Rows) -> int:
        for number, known in enumerate(self.sources):
            if known is source:
                return number
        self.sources.append(source)
        return len(self.sources) - 1

    def _matching(self, model: str) -> Rows | None:
        """The tensor of a model that takes no part, if it fits."""
        found = self.all._tensor(model, self.name)
        return found if found is not None and found.shape[1:] == self.sources[0].shape[1:] else None

    def _rules(self) -> None:
        """Rows that rules name."""
        for text, rule in self.all._rules.items():
            at = self.all._output[text]
            if rule.force:
                self.forced.append(at)
            if rule.kind == "default":
                continue
            self.some.pop(at, None)
            self.which[at], self.row[at] = (ZERO, 0) if rule.kind == "zero" else self._named(text, rule)

    def _named(self, text: str, rule: TokenRule) -> tuple[int, int]:
        """Source and row of a rule."""
        assert rule.model is not None
        place = f"tokenizer.tokens[{text!r}]"
        source = self.rows.get(rule.model)
        if source is None:
            source = self._matching(rule.model)
        if source is None:
            raise BadInput(f"{place}: {rule.model} has no tensor that fits {self.name!r}")
        wanted = text if rule.kind == "model" else rule.token
        index = rule.token_id if wanted is None else self.all._ids[rule.model].get(wanted)
        if index is None:
            raise BadInput(
                f"{place}: {rule.model} has no token {wanted!r}", "Name a token it has, or give its row by token_id."
            )
        if index >= source.shape[0]:
            raise BadInput(
                f"{place}: {rule.model} has no row {index} in {self.name!r}, which has {source.shape[0]} rows",
                "Give the token_id of one of its tokens, or the token itself.",
            )
        return self._number(source), index

    def rearranged(self, model: str) -> Rows:
        """The tensor of one model."""
        own = self.own[model].copy()
        own[self.forced] = -1
        number = self.models.index(model)
        which = np.where(own >= 0, number, self.which)
        row = np.where(own >= 0, own, self.row)
        self._pad(model, number, which, row)
        used = [number, *(int(k) for k in np.unique(which) if k >= 0 and k != number)]
        some = {at: pairs for at, pairs in self.some.items() if which[at] == SOME}
        used += sorted({k for pairs in some.values() for k, _ in pairs} - set(used))
        back = {k: n for n, k in enumerate(used)}
        renumber = np.array([back.get(k, 0) for k in range(len(self.sources))], np.int64)
        sources = [self.sources[k] for k in used]
        table = Table(
            [Reshaped(s, (s.shape[0], 1)) if len(s.shape) == 1 else s for s in sources],
            np.where(which >= 0, renumber[np.maximum(which, 0)], which),
            row,
            {at: [(back[k], r) for k, r in pairs] for at, pairs in some.items()},
            self.all._is_token,
        )
        return laid_out(table, self.rows[model], common_dtype([s.dtype for s in sources]))

    def _pad(self, model: str, number: int, which: Places, row: Places) -> None:
        """Rows that are no token's: those of the model, else those of the first one, else the mean."""
        empty = ~self.all._is_token
        which[empty] = MEAN
        places = np.arange(self.all.size)
        if self.all._padded:
            empty &= places < max(self.all._output.values()) + 1
        givers = [(model, number)]
        if self.all._first in self.rows and self.all._first != model:
            givers.insert(0, (self.all._first, self.models.index(self.all._first)))
        for giver, k in givers:
            free = self.all._unused[giver] & empty & (places < self.rows[giver].shape[0])
            which[free] = k
            row[free] = places[free]
