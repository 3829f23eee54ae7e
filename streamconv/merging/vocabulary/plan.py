"""The plan for a merged vocabulary, made from tokenizers, configurations and headers; no weight is read."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ...errors import BadInput, UsageError
from ...rows import Rows
from ...sources.checkpoint import Checkpoint
from ...sources.hf_config import text_section
from .. import side_files
from ..layout import Layout, lay_out
from .embedding import Embedder
from .files import Side, tokenizer_files, write_output
from .output import MergedVocabulary, shared_part, start, unite
from .settings import VocabularySettings
from .special_ids import ends_of, renumbered
from .templates import chosen_template, with_template
from .tokens import Tokens, read_tokens

_GENERATION = "generation_config.json"
#: two vocabularies that share less than this were not made for each other
_RELATED = 0.5


def plan_vocabulary(
    settings: VocabularySettings,
    models: Mapping[str, Checkpoint],
    base: str | None,
    only_named: Collection[str] = (),
) -> VocabularyPlan:
    """Plan the merged vocabulary.

    Parameters
    ----------
    settings : what the recipe says
    models : reference -> model, adapters applied, of every one that the recipe names, in its order
    base : reference of the base model; None: the first one's tokenizer takes its place, but not its rows
    only_named : those of ``models`` that only give rows or the tokenizer, and are not merged

    Raises
    ------
    BadInput, InputMissing, UsageError : a model has no tokenizer that can be read, a rule names what is not there …
    """
    merged = {name: model for name, model in models.items() if name not in only_named}
    if settings.source is None:
        return VocabularyPlan(None, _kept(settings, merged), {}, [])
    if any(model.metadata is not None for model in models.values()):
        raise BadInput(
            "tokenizer: the vocabulary of GGUF files cannot be changed",
            "Merge the checkpoints they were converted from.",
        )
    return _Planned(settings, models, merged, base).plan()


class VocabularyPlan:
    """The merged vocabulary, and how each model's rows are laid out for it.

    Parameters
    ----------
    embedder : lays rows out; None where the vocabulary stays as it is
    side : all files of the tokenizer by name, and ``generation_config.json`` where ids in it have moved
    config : other keys of config.json to set: ``bos_token_id`` and so on where the new tokenizer moved them
    warnings : what the user should know
    """

    def __init__(self, embedder: Embedder | None, side: Side, config: Mapping[str, Any], warnings: list[str]) -> None:
        self._embedder = embedder
        self.side: Mapping[str, Path | bytes] = side
        self.config = config
        self._warnings = warnings

    @property
    def size(self) -> int | None:
        """Rows of the merged embedding (``vocab_size`` of the config); None when the vocabulary stays as it is."""
        return None if self._embedder is None else self._embedder.size

    @property
    def warnings(self) -> list[str]:
        """What was found so far."""
        return [*self._warnings, *(self._embedder.warnings if self._embedder else ())]

    def embed(self, rows: Mapping[str, Rows], name: str) -> dict[str, Rows]:
        """The same tensor of every model, laid out for the merged vocabulary; see ``Embedder.embed``."""
        assert self._embedder is not None
        return self._embedder.embed(rows, name)


def _kept(settings: VocabularySettings, models: Mapping[str, Checkpoint]) -> Side:
    """The first tokenizer there is, with the template that is asked for."""
    giver = next((model for model in models.values() if side_files.has_tokenizer(model)), None)
    side = {} if giver is None else tokenizer_files(giver)
    return _templated(side, settings, models)


def _templated(side: Side, settings: VocabularySettings, models: Mapping[str, Checkpoint]) -> Side:
    if settings.chat_template is None:
        return side
    text = chosen_template(settings.chat_template, models)
    return side if text is None else with_template(side, text)


class _Planned:
    """One call of ``plan_vocabulary``."""

    def __init__(
        self,
        settings: VocabularySettings,
        models: Mapping[str, Checkpoint],
        merged: Mapping[str, Checkpoint],
        base: str | None,
    ) -> None:
        self.settings = settings
        self.models = models
        self.merged = merged
        self.base = base
        self.first = base if base is not None else next(iter(merged))
        self.giver = self.first if settings.source in ("union", "base") else str(settings.source)
        self.tokens: dict[str, Tokens] = {name: read_tokens(model, name) for name, model in models.items()}
        self.layouts: dict[str, Layout] = {name: lay_out(m.tensors, m.config) for name, m in models.items()}

    def plan(self) -> VocabularyPlan:
        """The plan."""
        output = self._output()
        for text in self.settings.tokens:
            output.append(text)
        if not output.ids:
            raise BadInput(f"{self.giver}: its tokenizer has no tokens")
        size = self._size(output)
        warnings = [*output.warnings, *self._strangers(output)]
        embedder = Embedder(
            output=output.ids,
            size=size,
            padded=self.settings.pad_to_multiple_of is not None,
            tokens=self.tokens,
            rules=self.settings.tokens,
            base=self.base,
            first=self.first,
            tensor=self._tensor,
            fallbacks=list(self.merged),
        )
        config, generation = self._config(output)
        self.tokens.clear()  # a few hundred thousand strings, which are no longer needed
        side = _templated({**write_output(self.models[self.giver], output), **generation}, self.settings, self.merged)
        if "vocab_size_per_layer_input" in text_section(self.models[self.first].config):
            config["vocab_size_per_layer_input"] = size
        return VocabularyPlan(embedder, side, config, warnings)

    def _output(self) -> MergedVocabulary:
        if self.giver not in self.models:
            raise UsageError(f"tokenizer.source: {self.giver} is not one of the models")
        output = start(self.giver, self.tokens[self.giver], self._n_rows(self.giver))
        if self.settings.source == "union":
            others = [name for name in self.merged if name != self.giver]
            unite(output, [(self.tokens[name], self._n_rows(name)) for name in others])
        return output

    def _n_rows(self, name: str) -> int:
        """Rows of a model's embedding."""
        found = self.layouts[name].embedding
        if found is None:
            raise BadInput(f"{name} has no token embedding, so its vocabulary cannot be changed")
        return self.models[name].tensors[found].shape[0]

    def _size(self, output: MergedVocabulary) -> int:
        """Rows of the output: never fewer than the base's where its ids stay, unless padding is asked for."""
        multiple = self.settings.pad_to_multiple_of
        if multiple is not None:
            return -(-output.end // multiple) * multiple
        return max(output.end, self._n_rows(self.first)) if self.giver == self.first else output.end

    def _strangers(self, output: MergedVocabulary) -> list[str]:
        """Warnings about vocabularies that have little in common with the output's."""
        ids = self.tokens[self.giver].ids
        parts = {n: shared_part(ids, self.tokens[n].ids) for n in self.merged if n != self.giver}
        return [
            f"{name} and {output.giver} have only {part:.0%} of their tokens in common; the rows of all others are not merged"
            for name, part in parts.items()
            if part < _RELATED
        ]

    def _tensor(self, model: str, name: str) -> Rows | None:
        """The tensor of ``model`` that stands where ``name`` does; a head that is not stored is the embedding."""
        tensors, layout = self.models[model].tensors, self.layouts[model]
        if name in tensors:
            return tensors[name]
        (place,) = lay_out([name], self.models[model].config).names
        found = next((n for p, n in layout.names.items() if p.key == place.key and p.layer is None), None)
        if found is None and place.is_head:
            found = layout.embedding
        return None if found is None else tensors[found]

    def _config(self, output: MergedVocabulary) -> tuple[dict[str, Any], Side]:
        """Keys of config.json, and generation_config.json where it must change, for ids that moved."""
        before = {index: text for text, index in self.tokens[self.first].ids.items()}
        donor, giver = self.models[self.first], self.models[self.giver]
        config: dict[str, Any] = {}
        for section in (text_section(donor.config), donor.config):
            config |= renumbered(section, before, output.ids)
        if self.giver == self.first:
            return config, {}
        config |= ends_of(text_section(giver.config)) | ends_of(giver.config)
        own = giver.side_file(_GENERATION)
        if own is not None:
            return config, {_GENERATION: own}
        theirs = donor.json(_GENERATION)
        if theirs is None:
            return config, {}
        ends = {key: value for key, value in ends_of(giver.config).items() if key in theirs}
        edited = {**theirs, **renumbered(theirs, before, output.ids), **ends}
        return config, {_GENERATION: (json.dumps(edited, indent=2, ensure_ascii=False) + "\n").encode()}
