"""ChatGLM's tokenizer.model: SentencePiece's pieces, whose first three and last nine its code names, or GLM 4's ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...sources import sentencepiece
from .files import TokenizerFiles
from .spm import TYPES
from .tiktoken import declared, read_tiktoken
from .vocabulary import TokenType, Vocabulary, check_room, token_count

_MODEL = "tokenizer.model"
_FIRST = ("<unk>", "<bos>", "<eos>")
_BEHIND = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")


def read_chatglm(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, pre: str | None) -> Vocabulary:
    """The vocabulary of tokenizer.model of ChatGLM 3, or of GLM 4 in the layout of its own code.

    Raises
    ------
    BadInput : the file is damaged or has more tokens than the model
    """
    path, data = files.called(_MODEL), files.bytes(_MODEL) or b""
    if sentencepiece.is_ranks(data):
        return read_tiktoken(files, config, size, _MODEL, declared(files), pre or "chatglm-bpe")
    texts, scores, types = sentencepiece.read_pieces(data, path)
    needed = len(texts) + len(_BEHIND)
    n_tokens = token_count(config, size, needed, "padded_vocab_size", "vocab_size")
    check_room(path, needed, n_tokens)
    vocabulary = Vocabulary.empty("llama", "chatglm-spm", str(path), n_tokens, 0.0)
    for index, text in enumerate(texts):
        known = _FIRST[index] if index < len(_FIRST) else text
        vocabulary.put(index, known, TYPES.get(types[index], TokenType.NORMAL), scores[index])
    for index, text in enumerate(_BEHIND, len(texts)):
        vocabulary.put(index, text, TokenType.CONTROL)
    return vocabulary
