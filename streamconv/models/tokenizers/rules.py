"""What differs between model families in where their tokenizer is and what is written about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .files import TokenizerFiles
from .vocabulary import Vocabulary

#: (files, normalised configuration, number of tokens where it is not the configuration's, pre-tokenizer) -> vocabulary
Reader = Callable[[TokenizerFiles, Mapping[str, Any], "int | None", "str | None"], Vocabulary]


@dataclass(frozen=True)
class TokenizerRule:
    """How a family stores its tokenizer.

    Attributes
    ----------
    kinds : which readers to try, in this order: ``spm``, ``bpe``, ``wordpiece``, ``t5``, and the names of ``own``; ``tekken`` goes
        before the others where there is no tokenizer.json
    own : readers that few families have: their kind -> the file that must be there (empty: none), and the reader
    add_space_prefix : ``tokenizer.ggml.add_space_prefix`` of a SentencePiece vocabulary, written after everything
        else; None writes nothing
    prefix_from_config : write tokenizer_config.json's ``add_prefix_space`` before everything else, if it is there
    eot_token_id : fixed id of the end of a turn, whatever the files say
    end_from_config : the id of the end of text is config.json's, whatever the tokenizer says
    template : name of the chat template of ``brought_along`` in place of that in tokenizer_config.json, which runtimes cannot parse
    by_vocab_size : ``vocab_size`` -> keys fixed for models of that size, without their prefix ``tokenizer.ggml.``
    """

    kinds: tuple[str, ...]
    own: Mapping[str, tuple[str, Reader]] = field(default_factory=dict)
    add_space_prefix: bool | None = None
    prefix_from_config: bool = False
    eot_token_id: int | None = None
    end_from_config: bool = False
    template: str = ""
    by_vocab_size: Mapping[int, Mapping[str, int | bool]] = field(default_factory=dict)


BPE = TokenizerRule(("bpe",))
BERT = TokenizerRule(("wordpiece",))
T5 = TokenizerRule(("t5",))
#: MiniCPM, InternLM 3
SPM = TokenizerRule(("spm",))
#: Qwen 2 and 3, dense
QWEN = TokenizerRule(("spm", "bpe"))
#: Gemma 2
GEMMA = TokenizerRule(("spm",), add_space_prefix=False)
GEMMA1 = TokenizerRule(("spm",), add_space_prefix=False, eot_token_id=107)
GEMMA3 = TokenizerRule(("spm", "bpe"), add_space_prefix=False)
#: Llama, Mistral, Mixtral, Granite, SmolLM 3; 32016 tokens are CodeLlama, 49152 the small Granites
LLAMA = TokenizerRule(
    ("tekken", "spm", "bpe"),
    prefix_from_config=True,
    by_vocab_size={32016: {"eot_token_id": 32010}, 49152: {"add_bos_token": False}},
)
