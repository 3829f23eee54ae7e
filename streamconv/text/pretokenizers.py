"""How byte-pair vocabularies split text into words: what ``tokenizer.ggml.pre`` names, and what else llama.cpp does for a name."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BadInput
from .splitting import ASCII_DIGITS, DIGITS_WITH_WHAT_GOES_BEFORE

_CONTRACTIONS = "'(?:[sdmt]|ll|ve|re)"
_CONTRACTIONS_IN_ANY_CASE = "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])"
#: what may stand before a word and belong to it
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_SIGNS = r" ?[^\s\p{L}\p{N}]+"
_BLANKS = r"\s+(?!\S)|\s+"
_LINES_AND_BLANKS = r"\s*[\r\n]+|" + _BLANKS
#: letters of words that begin with capitals; those without case are both
_CAPITAL, _SMALL = r"(?:(?![a-z])\p{L})", r"(?:(?![A-Z])\p{L})"


def _any(*patterns: str) -> str:
    return "|".join(patterns)


def _words(word: str, numbers: str, signs: str = _SIGNS + r"[\r\n]*", lines: str = _LINES_AND_BLANKS) -> str:
    """Contractions by themselves, then words, numbers, signs and blanks."""
    return _any(_CONTRACTIONS_IN_ANY_CASE, word, numbers, signs, lines)


def _cased(capital: str, small: str, contraction: str, numbers: str) -> str:
    """Words with a capital or several at the beginning, to which their contractions belong."""
    return _any(
        f"{_BEFORE}{capital}*{small}+{contraction}",
        f"{_BEFORE}{capital}+{small}*{contraction}",
        numbers,
        _SIGNS + r"[\r\n/]*",
        _LINES_AND_BLANKS,
    )


_GPT2 = _any(_CONTRACTIONS, r" ?\p{L}+", r" ?\p{N}+", _SIGNS, r"\s+(?!\S)")
_LLAMA3 = _words(_BEFORE + r"\p{L}+", r"\p{N}{1,3}")
_QWEN2 = _words(_BEFORE + r"\p{L}+", r"\p{N}")
_OPTIONALLY = f"(?:{_CONTRACTIONS_IN_ANY_CASE})?"
_UP_TO_3 = r"\p{N}{1,3}"
_HAN_AND_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_HAN_AND_HANGUL = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_ASCII_SIGNS = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
_DEEPSEEK3 = (
    rf"{_ASCII_SIGNS}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+",
    _LINES_AND_BLANKS,
)
_LINES = r"[^\n]+|\n+"
_UP_TO_PUNCTUATION = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
#: letters with case as DeepSeek LLM knows them
_CASED_LETTERS = (
    "A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377"
    "\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556"
    "\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_ASIAN = (
    "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff"
    "\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)

#: names that split alike, then their patterns
_SPLITS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("default", (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9]{3}")),
    (
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en jina-v2-code roberta-bpe"
        " exaone4 mpt olmo jais trillion granite-docling",
        (_GPT2,),
    ),
    ("starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", (r"\p{N}", _GPT2)),
    ("falcon", (r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9]{3}")),
    (
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe chatglm-bpe glm4 glm5",
        (_LLAMA3,),
    ),
    (
        "jais-2",
        (
            _words(
                _BEFORE + r"\p{L}+",
                _UP_TO_3,
                lines=_any(r"\s*[\r\n]+", *(rf"\s{{{2**n}}}(?!\S)" for n in range(9, 1, -1)), r"\s{1,2}(?!\S)", r"\s"),
            ),
        ),
    ),
    ("stablelm2 qwen2 deepseek-r1-qwen kormo f2llmv2 megrez hunyuan solar-open grok-2", (_QWEN2,)),
    ("qwen35", (_words(_BEFORE + r"[\p{L}\p{M}]+", r"\p{N}", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),)),
    ("laguna", (_LINES, _QWEN2)),
    ("ufakzeka", (_any(_BEFORE + r"\p{L}+", r"\p{N}", _SIGNS + r"[\r\n]*", _LINES_AND_BLANKS),)),
    ("seed-coder", (_words(_BEFORE + r"\p{L}+", r"\p{N}", r" ?[^\s\p{L}\p{N}\r\n]+"),)),
    (
        "bailingmoe bailingmoe2 llada-moe",
        (_words(_BEFORE + r"\p{L}+", r"\p{N}", lines=_any(r"\s*[\r\n]", _BLANKS)),),
    ),
    (
        "exaone-moe",
        (
            _words(
                _BEFORE + r"\p{L}(?:\p{M}| ?\p{L})*",
                r"\p{N}",
                _SIGNS + r"[\r\n/]?",
                _any(r"\s*[\r\n]", _BLANKS),
            ),
        ),
    ),
    ("minicpm5", (_UP_TO_3, _words(_BEFORE + r"\p{L}+", r"\p{N}+"))),
    ("tekken", (_cased(_CAPITAL, _SMALL, "", r"\p{N}"),)),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", (_cased(_CAPITAL, _SMALL, _OPTIONALLY, _UP_TO_3),)),
    (
        "granite-embed-multi-97m",
        (_cased(r"(?:(?![a-z])[\p{L}\p{M}])", r"(?:(?![A-Z])[\p{L}\p{M}])", _OPTIONALLY, _UP_TO_3),),
    ),
    # Their patterns tell capitals from small letters, which llama.cpp takes for the same class.
    (
        "tiny_aya cohere2moe",
        (
            DIGITS_WITH_WHAT_GOES_BEFORE,
            _any(_BEFORE + r"[\p{L}\p{M}]+" + _OPTIONALLY, _UP_TO_3, _SIGNS + r"[\r\n/]*", _LINES_AND_BLANKS),
        ),
    ),
    (
        "youtu",
        (
            "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
            f"|[\u3105-\u312f]+|{_HAN_AND_KANA}",
            _any(_BEFORE + r"[\p{L}\p{M}]+" + _OPTIONALLY, r"\p{N}", _SIGNS + r"[\r\n/]*", _LINES_AND_BLANKS),
        ),
    ),
    (
        "deepseek-llm",
        (
            "[\r\n]",
            rf"\s?[{_CASED_LETTERS}]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"\s+\Z",
            _HAN_AND_HANGUL,
            r"\p{N}+",
        ),
    ),
    ("deepseek-coder", ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_AND_HANGUL, r"\p{N}")),
    (
        "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
        (_UP_TO_3, _HAN_AND_KANA, _DEEPSEEK3[0] + r"[\r\n]*|" + _DEEPSEEK3[1]),
    ),
    ("spark2_5", (_UP_TO_3, _HAN_AND_KANA, _any(_DEEPSEEK3[0], r"[\r\n]", _BLANKS), r"\p{N}")),
    ("afmoe", (DIGITS_WITH_WHAT_GOES_BEFORE, _ASIAN, _DEEPSEEK3[0] + r"[\r\n]*|" + _DEEPSEEK3[1])),
    (
        "kimi-k2",
        (
            _any(
                r"\p{Han}+",
                _BEFORE + r"(?:(?!\p{Han})\p{L})+" + _OPTIONALLY,
                _UP_TO_3,
                _SIGNS + r"[\r\n]*",
                _LINES_AND_BLANKS,
            ),
        ),
    ),
    ("superbpe", (r"\p{N}+", ASCII_DIGITS)),
    ("poro-chat bloom gpt3-finnish", (_UP_TO_PUNCTUATION,)),
    ("viking", (_UP_TO_PUNCTUATION, r"\p{N}")),
    (
        "chameleon",
        (
            "<sentinel:[0-9]+>",
            "IMGIMG[A-I]{1,4}Z",
            r"[\t\n]|    |  ",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT2,
        ),
    ),
    ("gemma4 granite-embed-multi-311m sarvam-moe", (_LINES,)),
    ("whitespace", (r"\S+",)),
)
_PATTERNS = {name: patterns for names, patterns in _SPLITS for name in names.split()}
#: everything that ``tokenizer.ggml.pre`` can be
NAMES = tuple(_PATTERNS)
_LIKE_LLAMA3 = (
    "llama3",
    "llama-v3",
    "llama-bpe",
    "falcon3",
    "falcon-h1",
    "pixtral",
    "midm-2.0",
    "lfm2",
    "jina-v5-nano",
)
_GEMMA4 = ("gemma4", "granite-embed-multi-311m")


@dataclass(frozen=True)
class PreTokenizer:
    """What a name stands for.

    Attributes
    ----------
    patterns : as ``Splitter`` takes them
    byte_level : words are spelled in the alphabet of bytes
    escapes_blanks : blanks are written as U+2581 beforehand
    whole_words : a word that is a token is that token, whatever the merges say
    lines_are_tokens : runs of line ends that are a token are that token
    adds_bos, forces_bos : texts begin with BOS, where no key says so, or whatever it says
    has_bos : BOS is token 11 where no key says so
    needs_no_merges : a vocabulary without merges is whole
    keeps_case : capitals stay, where no key says so
    """

    patterns: tuple[str, ...]
    byte_level: bool
    escapes_blanks: bool
    whole_words: bool
    lines_are_tokens: bool
    adds_bos: bool
    forces_bos: bool
    has_bos: bool
    needs_no_merges: bool
    keeps_case: bool


def pre_tokenizer(name: str) -> PreTokenizer:
    """The one called ``name``, as ``tokenizer.ggml.pre`` has it; BadInput for a name that is not known."""
    if name not in _PATTERNS:
        raise BadInput(
            f"tokenizer.ggml.pre is {name!r:.80}, a way to split text that is not known here",
            f"Known are {', '.join(sorted(NAMES))}.",
        )
    return PreTokenizer(
        _PATTERNS[name],
        byte_level=name not in (*_GEMMA4, "sarvam-moe", "whitespace"),
        escapes_blanks=name in (*_GEMMA4, "sarvam-moe"),
        whole_words=name in (*_LIKE_LLAMA3, "minicpm5", "youtu", "glm4", "glm5", "tekken", "granite-embed-multi-97m"),
        lines_are_tokens=name in _GEMMA4,
        adds_bos=name in (*_LIKE_LLAMA3, "tekken", "chameleon"),
        forces_bos=name in _GEMMA4,
        has_bos=name not in ("chatglm-bpe", "glm4", "glm5"),
        needs_no_merges=name == "kimi-k2",
        keeps_case=name == "whitespace",
    )
