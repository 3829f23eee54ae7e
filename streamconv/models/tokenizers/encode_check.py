"""Let the ``tokenizers`` library encode or decode texts, in a process of its own.

Run by ``library.py`` as a script: the library keeps 80 MiB for a vocabulary of 150 000 tokens and never frees them, it
aborts on some damaged files, and its regular expressions may never end. Imports nothing of ours.

Argument : JSON ``{"cpu_s": int, "memory_bytes": int}``, the bounds of this process, and the request:

    ``{"text": str, "file": tokenizer.json}``, or ``vocab`` and ``merges`` instead of ``file``, then perhaps ``words``, a pattern of
        words; with none of them tokenizer.json comes through the standard input. Answer: ``{"ids": [int], "plain": [int]}``, with
        and without the special tokens of the template
    ``{}``; through the standard input comes JSON ``{"decoder": entry of tokenizer.json, "texts": [str]}``.
        Answer: ``{"texts": [str]}``, each decoded as the only token

Standard output : the answer as JSON, or ``{"error": str}``, or ``{"no memory": str}``
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

#: no token stands for more
_MAX_CHARACTERS = 1 << 20


def encode(request: dict[str, str]) -> dict[str, Any]:
    """Ids of ``text``."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    if "file" in request:
        tokenizer = Tokenizer.from_file(request["file"])
    elif "vocab" not in request:
        tokenizer = Tokenizer.from_str(sys.stdin.buffer.read().decode())
    else:  # the older pair of files says nothing of how text is split: as its class does, GPT-2's way where that is not known
        tokenizer = Tokenizer(models.BPE.from_file(request["vocab"], request["merges"]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        if "words" in request:
            tokenizer.normalizer = normalizers.NFC()
            words = pre_tokenizers.Split(Regex(request["words"]), "isolated")
            spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, spelled])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    with_special = tokenizer.encode(request["text"]).ids
    return {"ids": with_special, "plain": tokenizer.encode(request["text"], add_special_tokens=False).ids}


def decode(decoder: Any, texts: list[str]) -> dict[str, Any]:
    """What ``texts`` stand for."""
    from tokenizers import Tokenizer

    empty = {"type": "BPE", "vocab": {}, "merges": []}
    native = Tokenizer.from_str(json.dumps({"version": "1.0", "decoder": decoder, "model": empty})).decoder
    decoded = []
    for text in texts:
        decoded.append(native.decode([text]))
        if len(decoded[-1]) > _MAX_CHARACTERS:
            return {"error": f"its decoder makes {len(decoded[-1])} characters of a token"}
    return {"texts": decoded}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request."""
    try:
        return encode(request) if "text" in request else decode(**json.load(sys.stdin.buffer))
    except MemoryError as e:
        return {"no memory": str(e)}
    except ImportError as e:
        return {"error": f"the Python package tokenizers cannot be imported ({e})"}
    except BaseException as e:  # the library's panics derive from BaseException
        return {"error": str(e) or type(e).__name__}


def bound(cpu_s: int, memory_bytes: int) -> None:
    """Take at most so much processor time and memory, or as much less as was allowed before."""
    try:
        import resource
    except ImportError:
        return
    for kind, most in ((resource.RLIMIT_CPU, cpu_s), (resource.RLIMIT_AS, memory_bytes)):
        soft, hard = resource.getrlimit(kind)
        known = [limit for limit in (soft, hard, most) if limit != resource.RLIM_INFINITY]
        with suppress(OSError, ValueError):  # a system that knows no such limit
            resource.setrlimit(kind, (min(known), hard))


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    bound(asked.pop("cpu_s"), asked.pop("memory_bytes"))
    json.dump(answer(asked), sys.stdout)
