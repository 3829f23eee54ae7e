"""Texts that tokenizers stumble over, from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

_WORDS = (
    *(
        "the",
        "The",
        "THE",
        "don't",
        "I'LL",
        "we'Ve",
        "they'RE",
        "'s",
        "'S",
        "''",
        "it's'",
        "naïve",
        "Straße",
        "ſ",
        "İstanbul",
        "ﬁne",
    ),
    *(
        "camelCaseWord",
        "XMLHttpRequest",
        "snake_case_name",
        "return",
        "hello-world",
        "e.g.",
        "http://a.b/c?d=e&f",
        "\\n",
        "C:\\x",
    ),
    *(
        "привет",
        "Ёж",
        "γειά",
        "Ǆ",
        "ǅ",
        "שלום",
        "مرحبا",
        "नमस्ते",
        "ভাষা",
        "ภาษาไทย",
        "ខ្មែរ",
        "မြန်မာ",
        "ລາວ",
        "한국어",
        "ㄅㄆ",
        "ㅏㅓ",
    ),
    *(
        "日本語テキスト",
        "ひらがな",
        "中文分词",
        "一龥丁",
        "㐀㐁",
        "𠀀𠮷",
        "豈更",
        "ﾊﾝｶｸ",
        "２０２４年",
        "１２３",
        "Ⅷ",
        "½",
        "①②③",
        "٣٤٥",
        "२३",
        "𝟘𝟙",
    ),
    *(
        "é",
        "e\u0301",
        "a\u0300\u0301\u0302",
        "\u0301",
        "ộ",
        "Å",
        "Å",
        "Ω",
        "ℤ",
        "µ",
        "ƻ",
        "ʔ",
        "ﷺ",
        "ﬃ",
        "ǰ",
        "각",
        "가",
        "\u1100\u1161",
    ),
    *(
        "🚀",
        "👩\u200d👩\u200d👧\u200d👦",
        "😶\u200d🌫\ufe0f",
        "🇩🇪",
        "👍🏽",
        "✅",
        "❤\ufe0f",
        "…",
        "—",
        "–",
        "‘quoted’",
        "“q”",
        "«x»",
        "、。！？",
        "،۔।",
    ),
    *(
        "<sentinel:12>",
        "IMGIMGABCZ",
        "IMGIMGAZ",
        "$5.00",
        "a+b=c",
        "x<y>z",
        "^~|`",
        "!!!",
        "...",
        "//",
        "/\r\n",
        "#!/",
        "{}[]()",
        "@me",
        "100%",
    ),
    *(
        "\u2581",
        "\u2581\u2581",
        "\u2581a",
        "Ġ",
        "Ċ",
        "<0x0A>",
        "<0xE2>",
        "<unk>",
        "[UNK]",
        "[CLS]",
        "<|",
        "|>",
        "a</s>",
        "\ufeff",
        "\u200b",
        "\u2060",
    ),
    *(
        "\ufffd",
        "\uffff",
        "\ue000",
        "\ud7ff",
        "\U000e0001",
        "\U0010ffff",
        "\u0378",
        "\U000323af",
        "\U0002ebf0",
        "\u31ef",
        "\x00",
        "\x7f",
        "\x1f",
    ),
)
_BLANKS = (
    *" \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u200b",
    "\r\n",
    "  ",
    "   ",
    "\n\n",
    "\n\n\n",
    " \n",
    "\n ",
)
_BROKEN = (
    b"\xff",
    b"\xc3",
    b"\xe2\x82",
    b"\xf0\x9f\x9a",
    b"\x80",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\xf8\x88",
    b"\xe2ab",
    b"\xbf\xbf",
    b"\xf0\x80\x80\x80",
)
_BLOCKS = (
    (0, 0x80),
    (0x80, 0x250),
    (0x300, 0x600),
    (0x600, 0x1000),
    (0x1000, 0x2000),
    (0x2000, 0x3400),
    (0xA000, 0xD800),
    (0xF900, 0x10000),
    (0x10000, 0x20000),
)


def _piece(rng: random.Random, special: Sequence[str]) -> str:
    kind = rng.randrange(12)
    if kind < 4:
        return rng.choice(_WORDS)
    if kind < 6:
        return rng.choice(_BLANKS) * rng.choice((1, 1, 1, 2, 3, 9))
    if kind == 6:
        return "".join(rng.choice("0123456789") for _ in range(rng.randrange(1, 12)))
    if kind == 7:
        low, high = rng.choice(_BLOCKS)
        return "".join(chr(rng.randrange(low, high)) for _ in range(rng.randrange(1, 5)))
    if kind == 8 and special:
        return rng.choice(special)
    if kind == 9:
        return rng.choice(
            ("a", "A", "=", "-", "0", "'", "\n", " ", "é", "的", "\u0301", "\u2581", "😀", "ab", "\r\n")
        ) * rng.randrange(1, 70)
    if kind == 10:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ'") for _ in range(rng.randrange(1, 9)))
    return rng.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") * rng.choice((1, 1, 2, 3))


def hostile_texts(seed: int, count: int, special: Sequence[str] = ()) -> list[bytes]:
    """``count`` texts in UTF-8, one in five of them broken; ``special``: texts of tokens that turn up in them."""
    rng = random.Random(seed)
    texts = [b""]
    while len(texts) < count:
        pieces = [_piece(rng, special) for _ in range(rng.choice((1, 2, 3, 5, 8, 13, 30)))]
        text = rng.choice(("", "", " ")).join(pieces).encode("utf-8", "surrogatepass")
        for _ in range(rng.randrange(1, 4) if rng.random() < 0.2 else 0):
            at = rng.randrange(len(text) + 1)
            text = text[:at] + rng.choice(_BROKEN) + text[at:]
        texts.append(text)
    return texts
