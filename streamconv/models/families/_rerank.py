"""Rerankers of Qwen 3: language models of which only the words yes and no are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...errors import BadInput
from ...kit import cut, join
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ..family import Family
from ..rules import Rule, rename
from ..tokenizers.files import TokenizerFiles
from ..tokenizers.json_model import model_ids, read_model

_ANSWERS = ("yes", "no")
_TITLES = ("# qwen3-reranker", "# qwen3-vl-reranker")
_TEMPLATE = """<|im_start|>system
Judge whether the Document meets the requirements based on the Query and the Instruct provided. \
Note that the answer can only be "yes" or "no".<|im_end|>
<|im_start|>user
<Instruct>: Given a web search query, retrieve relevant passages that answer the query
<Query>: {query}
<Document>: {document}<|im_end|>
<|im_start|>assistant
<think>

</think>

"""
_EMBEDDING, _HEAD, _SCORES = "model.embed_tokens.weight", "lm_head.weight", "cls.output.weight"


def _is_reranker(c: Config) -> bool:
    if c.checkpoint is None:
        return False
    said = [c.checkpoint.name or c.checkpoint.folder.name, c.raw.get("_name_or_path"), c.raw.get("model_type")]
    names = " ".join(map(str, [*said, c.raw.get("architectures")])).lower()
    card = (c.checkpoint.text("README.md") or "").lower()
    return "qwen3-reranker" in names or "sequenceclassification" in names or any(t in card for t in _TITLES)


def _answers(rows: Sequence[Rows], c: Config) -> list[Rows]:
    """The rows of the head for the answers."""
    assert c.checkpoint is not None
    path, model = read_model(TokenizerFiles(c.checkpoint), "BPE")
    ids = model_ids(model, path)
    if missing := [word for word in _ANSWERS if word not in ids]:
        raise BadInput(f"{path}: it has no token {missing[0]!r}, which a reranker answers with")
    return [join([cut(rows[0], ids[word], ids[word] + 1) for word in _ANSWERS])]


def _keys(m: Metadata, a: str, c: Config) -> None:
    m.u32(f"{a}.pooling_type", 4)
    m.array(f"{a}.classifier.output_labels", "STRING", _ANSWERS)


def _template(m: Metadata, a: str, c: Config) -> None:
    m.string("tokenizer.chat_template.rerank", _TEMPLATE)
    m.array("tokenizer.chat_templates", "STRING", ["rerank"])


def reranking(family: Family, c: Config) -> Family:
    """``family`` with the answers for an output, where the checkpoint is of a reranker."""
    if not _is_reranker(c):
        return family
    names = c.checkpoint.tensors if c.checkpoint is not None else ()
    has_head = any(family.spelled(name, c) == _HEAD for name in names)
    scores = Rule((_SCORES,), (_HEAD if has_head else _EMBEDDING,), _answers)
    rules = (scores,) if has_head else (scores, rename(_EMBEDDING, "token_embd.weight"))
    return replace(
        family,
        rules=(*family.rules, *rules),
        keys=(*family.keys, _keys),
        token_keys=(*family.token_keys, _template),
    )
