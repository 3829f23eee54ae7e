"""Small vocabularies of every kind, made from seeds, which show where a text was split: most pairs of neighbours are tokens."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from gguf import GGUFWriter

from streamconv.text.byte_pairs import _ALPHABET

_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_RAW = ("gemma4", "granite-embed-multi-311m", "sarvam-moe", "whitespace")

Keys = dict[str, Any]


def _unique(*lists: list[str]) -> list[str]:
    return list(dict.fromkeys(token for tokens in lists for token in tokens))


def _pairs(characters: list[str], share: float) -> list[tuple[str, str]]:
    rng = random.Random(5)
    pairs = [(a, b) for a in characters for b in characters if rng.random() < share]
    rng.shuffle(pairs)
    return pairs


def byte_pairs(pre: str, share: float = 0.25) -> Keys:
    """Keys of a vocabulary for the pre-tokenizer ``pre``, whose merges are a ``share`` of all pairs."""
    if pre in _RAW:
        letters = [chr(i) for i in range(33, 127)] + list("▁é的한😀\u0301")
        pairs = _pairs(letters, 1)
        tokens = _unique(letters, ["\n", "\n\n", "\n\n\n"], _BYTES, [a + b for a, b in pairs])
    else:
        letters = [chr(_ALPHABET[byte]) for byte in range(256)]
        pairs = _pairs(letters, share)
        tokens = letters + [a + b for a, b in pairs]
    keys = {
        "model": "whitespace" if pre == "whitespace" else "gpt2",
        "pre": pre,
        "tokens": [*tokens, "<s>", "<u>"],
        "merges": [f"{a} {b}" for a, b in pairs],
        "token_type": [1] * len(tokens) + [3, 4],
        "bos_token_id": len(tokens),
    }
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def sentence_pieces(name: str = "", **more: Any) -> Keys:
    """Keys of a vocabulary with equal scores, tokens with blanks inside, and tokens whose kind has to be corrected."""
    rng = random.Random(9)
    pieces = [
        *"▁abcdefghijklmnopqrstuvwxyz.,!'0123456789",
        "▁t",
        "▁th",
        "▁the",
        "he",
        "th",
        "the",
        "a▁b",
        "▁▁",
        "▁▁▁▁",
        "b▁",
    ]
    pieces += ["世界", "世", "é", "aa", "aaaa", "aaa", "ab", "ba", "aba"]
    special = [
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|channel|>",
        "<x>",
        "x><",
        "\n\n",
        "  ",
        "   ",
        "<fim_prefix>",
        "<eos>",
        "<|endoftext|>",
        "[MASK]",
    ]
    keys = {
        "model": "llama",
        "tokens": _unique(["<unk>", "<s>", "</s>"], _BYTES, pieces, special),
        "scores": [0.0] * 259 + [float(rng.choice([-1, -2, -3])) for _ in pieces + special],
        "token_type": [2, 3, 3] + [6] * 256 + [1] * len(pieces) + [rng.choice([1, 3, 4]) for _ in special],
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (keys | more).items()} | (
        {"general.name": name} if name else {}
    )


def word_pieces(**more: Any) -> Keys:
    """Keys of a vocabulary of BERT's kind."""
    words = [f"▁{word}" for word in ("the", "quick", "brown", *"abc世界!',.eé")]
    tokens = _unique(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], words, [*"abcdefghijklmnopqrstuvwxyzé0123456789"], ["ing", "qu"]
    )
    keys = {
        "model": "bert",
        "tokens": tokens,
        "token_type": [3] * 5 + [1] * (len(tokens) - 5),
        "unknown_token_id": 1,
        "bos_token_id": 2,
        "seperator_token_id": 3,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (keys | more).items()}


def unigram(**more: Any) -> Keys:
    """Keys of a vocabulary of T5's kind, with a map that replaces a few characters."""
    rng = random.Random(11)
    pieces = _unique(
        ["▁"], [*"abcdefghijklmnopqrstuvwxyzABCD.,!'é世"], ["▁the", "▁a", "ab", "the", "▁t", "世界", "[MASK]"]
    )
    keys = {
        "model": "t5",
        "tokens": ["<pad>", "</s>", "<unk>", *pieces, "<x>", "<extra_1>", "▁▁"],
        "scores": [0.0] * 3 + [-rng.randint(1, 9) / 2 for _ in range(len(pieces) + 3)],
        "token_type": [3, 3, 2] + [1] * len(pieces) + [4, 4, 5],
        "precompiled_charsmap": characters_map(
            {"A": "a", "ﬁ": "fi", "é": "e", "e\u0301": "é", "\u3000": " ", "…": "...", "\t": ""}
        ),
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (keys | more).items()}


def characters_map(replacements: dict[str, str]) -> list[int]:
    """A map as SentencePiece compiles it: a double array in which every byte leads to a block of 256 units of its own."""
    tree: dict[int, Any] = {}
    texts = b""
    for before, after in replacements.items():
        node = tree
        for byte in before.encode():
            node = node.setdefault(byte, {})
        node[-1] = len(texts)
        texts += after.encode() + b"\0"
    units = [0] * 256
    queue = [(0, tree)]
    while queue:
        at, node = queue.pop()
        base = len(units)
        units += [0] * 256
        # The distance is xor-ed: blocks of 256 that begin at multiples of 256 keep the lower bits free for the byte.
        distance = at ^ base
        units[at] |= distance << 10 if distance < 1 << 21 else (distance >> 8) << 10 | 1 << 9
        for byte, child in node.items():
            if byte < 0:
                units[at] |= 1 << 8
                units[base] = 1 << 31 | child
            else:
                units[base ^ byte] = byte
                queue.append((base ^ byte, child))
    packed = b"".join(unit.to_bytes(4, "little") for unit in units)
    return list(len(packed).to_bytes(4, "little") + packed + texts)


def longest_match(**more: Any) -> Keys:
    """Keys of a vocabulary of RWKV's kind."""
    named = {9: "\\t", 10: "\\n", 13: "\\r", 92: "\\\\"}

    def escaped(data: bytes) -> str:
        return "".join(named.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in data)

    words = ["the", " the", " th", "quick", "\n\n\n", "    ", "a\u0301", "🚀", "ab", "abcd", "12", "==", "don't"]
    tokens = _unique(
        ["<s>"], [escaped(bytes([b])) for b in range(256)], [escaped(word.encode()) for word in words], ["世", "世界"]
    )
    keys = {
        "model": "rwkv",
        "tokens": tokens,
        "token_type": [3] + [1] * (len(tokens) - 1),
        "add_bos_token": True,
        "bos_token_id": 0,
        "unknown_token_id": 0,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (keys | more).items()}


def plamo() -> Keys:
    """Keys of a vocabulary of PLaMo 2's kind, with equal scores and one that is rounded."""
    rng = random.Random(13)
    pieces = _unique(
        [*"abcdefghijklmnopqrstuvwxyz ETA的한é"],
        ["</s>", "a</s>", "ab c", "the", " the", "ab", "abc", "bc", "12", "\n\n", "世界"],
    )
    keys = {
        "model": "plamo2",
        "tokens": ["<|plamo:unk|>", "<|plamo:bos|>", "<|plamo:eos|>", "<|plamo:pad|>", *_BYTES, *pieces],
        "scores": [0.0] * 260 + [float(rng.choice([-1, -2, -2, -3.5, -7.25, -0.00015])) for _ in pieces],
        "token_type": [2, 3, 3, 3] + [6] * 256 + [1] * len(pieces),
    }
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def all_kinds() -> dict[str, Keys]:
    """Vocabularies of all kinds but byte pairs, by names that say what is special."""
    phi = sentence_pieces("My Phi-3", add_space_prefix=False)
    return {
        "pieces": sentence_pieces(),
        "pieces, no prefix, blanks behind": phi,
        "pieces, blanks before a mask, an end": sentence_pieces("modern-bert", add_eos_token=True),
        "words": word_pieces(),
        "words, accents": word_pieces(**{"normalizer.strip_accents": False}),
        "words, case": word_pieces(**{"normalizer.lowercase": False}),
        **{
            f"unigram, prefix {prefix}, blanks dropped {dropped}": unigram(
                add_space_prefix=prefix, remove_extra_whitespaces=dropped
            )
            for prefix in (True, False)
            for dropped in (True, False)
        },
        "longest": longest_match(),
        "plamo": plamo(),
    }


def write(path: Path, keys: Keys) -> Path:
    """A GGUF file with ``keys`` and nothing else."""
    writer = GGUFWriter(path, "llama")
    for key, value in keys.items():
        if isinstance(value, list):
            writer.add_array(key, value if not key.endswith("charsmap") else bytes(value))
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path
