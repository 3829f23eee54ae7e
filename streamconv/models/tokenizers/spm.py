"""SentencePiece vocabularies: ``tokenizer.model`` and the tokens added beside it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...sources import sentencepiece
from .added import overlay
from .files import TokenizerFiles
from .vocabulary import UNUSED_SCORE, TokenType, Vocabulary, token_count

#: type of a piece -> ours; a user-defined piece is an ordinary token to the loaders
TYPES = {
    sentencepiece.UNKNOWN: TokenType.UNKNOWN,
    sentencepiece.CONTROL: TokenType.CONTROL,
    sentencepiece.UNUSED: TokenType.UNUSED,
    sentencepiece.BYTE: TokenType.BYTE,
}
#: names of such models; older checkpoints have the second
MODELS = "tokenizer.model", "spiece.model"


def read_spm(
    files: TokenizerFiles,
    config: Mapping[str, Any],
    vocab_size: int | None,
    added: Callable[[TokenizerFiles, Vocabulary], None] = overlay,
) -> Vocabulary:
    """The vocabulary of ``tokenizer.model``, overlaid with the tokens that other files add.

    Parameters
    ----------
    config : the normalised model configuration
    vocab_size : number of tokens; by default the configuration's, else as many as the model has
    added : lays them over the pieces, see ``added.overlay``

    Raises
    ------
    BadInput : a file is damaged
    """
    name = next((name for name in MODELS if files.has(name)), MODELS[0])
    path = files.called(name)
    texts, scores, types = sentencepiece.read_pieces(files.bytes(name) or b"", path)
    n_tokens = token_count(config, vocab_size, len(texts), "vocab_size_per_layer_input", "vocab_size")
    vocabulary = Vocabulary.empty("llama", "default", str(path), n_tokens, UNUSED_SCORE)
    kept = min(n_tokens, len(texts))
    vocabulary.texts[:kept] = texts[:kept]
    vocabulary.types[:kept] = array("i", (TYPES.get(kind, TokenType.NORMAL) for kind in types[:kept]))
    if vocabulary.scores is not None:
        vocabulary.scores[:kept] = scores[:kept]
    if kept < len(texts):
        vocabulary.warnings.append(
            f"{path} has {len(texts)} tokens, the model only {n_tokens}: the last {len(texts) - kept} are left out"
        )
    added(files, vocabulary)
    return vocabulary


def read_t5(files: TokenizerFiles, config: Mapping[str, Any], vocab_size: int | None) -> Vocabulary:
    """The same of T5 and its kin, which mostly have Unigram models; what else those say follows the tokens."""
    vocabulary = read_spm(files, config, vocab_size)
    path = Path(vocabulary.source)
    settings = sentencepiece.read_settings(files.bytes(path.name) or b"", path)
    if settings.is_unigram:
        vocabulary.model = "t5"
        vocabulary.more.boolean("tokenizer.ggml.add_space_prefix", settings.add_prefix)
        vocabulary.more.boolean("tokenizer.ggml.remove_extra_whitespaces", settings.remove_spaces)
        vocabulary.more.array("tokenizer.ggml.precompiled_charsmap", "UINT8", list(settings.characters))
    return vocabulary
