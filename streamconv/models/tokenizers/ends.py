"""Ids the reference leaves for a loader to guess: the first of a list, and what only generation_config.json says.

A loader that finds no key takes the ids of some old model: for Gemma 3, whose config.json lists two ends, it would
stop at ``<bos>``. What is added here only ever fills a missing key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...metadata import Metadata
from ...sources.hf_config import text_sections
from .files import TokenizerFiles, token_id, token_text
from .special import SpecialTokens, id_key
from .vocabulary import TokenType

#: texts that end a turn; a loader looking for them by text takes the first its hash table yields
END_OF_TURN = ("<end_of_turn>", "<|eot_id|>", "<|im_end|>")


def complete_ids(
    metadata: Metadata,
    files: TokenizerFiles,
    config: Mapping[str, Any],
    special: SpecialTokens,
    ids: Mapping[str, int],
    types: Sequence[int],
) -> None:
    """Add the ids of bos, eos and eot where the files tell them and no key does yet.

    Parameters
    ----------
    config : the normalised model configuration; its class defaults count only where a control token is
    special : texts of special tokens
    ids : token text -> id
    types : ``TokenType`` by id
    """
    for kind in ("bos", "eos"):
        if id_key(kind) not in metadata:
            found = _find(kind, files, config, special, ids, types)
            if found is not None:
                metadata.u32(id_key(kind), found)
    if id_key("eot") not in metadata:
        ends = set(_told("eos", files))
        found = next((ids[text] for text in END_OF_TURN if ids.get(text) in ends), None)
        if found is not None:
            metadata.u32(id_key("eot"), found)


def _find(
    kind: str,
    files: TokenizerFiles,
    config: Mapping[str, Any],
    special: SpecialTokens,
    ids: Mapping[str, int],
    types: Sequence[int],
) -> int | None:
    for index in _told(kind, files):
        if index < len(types):
            return index
    for text in (special.texts.get(kind), token_text(files.special_map.get(f"{kind}_token"))):
        if text is not None and text in ids:
            return ids[text]
    for index in _ids_in(config.get(f"{kind}_token_id")):
        if index < len(types) and types[index] == TokenType.CONTROL:
            return index
    return None


def _told(kind: str, files: TokenizerFiles) -> Iterator[int]:
    """Every id the checkpoint's own files give for ``kind``, config.json first."""
    key = f"{kind}_token_id"
    root = files.raw_config
    for source in (root, *text_sections(root), files.generation_config):
        yield from _ids_in(source.get(key))


def _ids_in(value: Any) -> Iterator[int]:
    for entry in value if isinstance(value, list) else [value]:
        index = token_id(entry)
        if index is not None and index >= 0:
            yield index
