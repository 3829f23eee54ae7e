"""The files beside the weights: tokenizer, generation config, custom code, and a README that holds the recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..file_names import OF_TOKENIZERS, VOCABULARIES, fits
from ..sources.checkpoint import Checkpoint

_TOKENIZER = (*OF_TOKENIZERS, "tokenization_*.py")
_GENERATION = ("generation_config.json",)
_OTHER = ("*processor_config.json", "*.py", "LICENSE*", "NOTICE*", "USE_POLICY*")
CONFIG, README, RECIPE = "config.json", "README.md", "mergekit_config.yml"

Side = dict[str, "Path | bytes"]


def collect(models: Sequence[Checkpoint], tokenizer: Mapping[str, Path | bytes] | None) -> Side:
    """The side files of a merge, without config.json and README.

    Parameters
    ----------
    models : the donor first; where it lacks a kind of file, the next model that has it gives it
    tokenizer : the files of a tokenizer made for the merge; None: take a donor's
    """
    side: Side = {}
    for kind, wanted in ((_OTHER, _OTHER), (_GENERATION, _GENERATION), (_TOKENIZER, VOCABULARIES)):
        if kind is _TOKENIZER and tokenizer is not None:
            side.update(tokenizer)
            continue
        giver = next((m for m in models if _matching(m, wanted)), None)
        for name in _matching(giver, kind) if giver is not None else ():
            found = giver.side_file(name) if giver is not None else None
            if found is not None:
                side[name] = found
    return side


def _matching(checkpoint: Checkpoint, patterns: Iterable[str]) -> list[str]:
    if checkpoint.metadata is not None:  # what lies beside a GGUF file has nothing to do with it
        return []
    return [name for name in checkpoint.side_names() if fits(name, patterns)]


def tokenizer_names(checkpoint: Checkpoint) -> list[str]:
    """Names of all files of a checkpoint's tokenizer."""
    return _matching(checkpoint, _TOKENIZER)


def has_tokenizer(checkpoint: Checkpoint) -> bool:
    """Whether there is a vocabulary among the side files."""
    return bool(_matching(checkpoint, VOCABULARIES))


def config_text(config: Mapping[str, Any]) -> bytes:
    """config.json in the usual form, keys in their order."""
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def cards(title: str, described: str, models: Sequence[str], recipe: str) -> Side:
    """A model card with the recipe in it, and the recipe.

    Parameters
    ----------
    described : how it was made, as the end of a sentence
    models : references, as the recipe spells them
    recipe : text of the whole file
    """
    listed = "\n".join(f"- {json.dumps(name, ensure_ascii=False)}" for name in models)
    fence = "```"
    while fence in recipe:
        fence += "`"
    text = f"""---
library_name: transformers
tags:
- merge
- mergekit
base_model:
{listed}
---
# {title}

Merged by streamconv with {described}.

## Models
{listed}

## Recipe
{fence}yaml
{recipe.strip()}
{fence}
"""
    return {README: text.encode(), RECIPE: recipe.encode()}
