"""Encode one text with a tokenizer.json, in a process of its own.

Run by ``pretokenizer.py`` as a script: the ``tokenizers`` library keeps 80 MiB for a vocabulary of 150 000 tokens and
never gives them back, and it aborts on some damaged files. Imports nothing of ours.

Argument : JSON ``{"file": tokenizer.json, "text": str}``, or ``vocab`` and ``merges`` instead of ``file``; with none of
    them tokenizer.json comes through the standard input
Standard output : JSON ``{"ids": [int], "plain": [int]}``, with and without the special tokens of the template,
    or ``{"error": str}``, or ``{"no memory": str}``
"""

from __future__ import annotations

import json
import sys
from typing import Any


def encode(request: dict[str, str]) -> dict[str, Any]:
    """Answer one request."""
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers
    except MemoryError as e:
        return {"no memory": str(e)}
    except ImportError as e:
        return {"error": f"the Python package tokenizers cannot be imported ({e})"}
    try:
        if "file" in request:
            tokenizer = Tokenizer.from_file(request["file"])
        elif "vocab" not in request:
            tokenizer = Tokenizer.from_str(sys.stdin.buffer.read().decode())
        else:  # the older pair of files says nothing of how text is split: GPT-2's way
            tokenizer = Tokenizer(models.BPE.from_file(request["vocab"], request["merges"]))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        with_special = tokenizer.encode(request["text"]).ids
        return {"ids": with_special, "plain": tokenizer.encode(request["text"], add_special_tokens=False).ids}
    except MemoryError as e:
        return {"no memory": str(e)}
    except BaseException as e:  # the library's panics derive from BaseException
        return {"error": str(e) or type(e).__name__}


if __name__ == "__main__":
    json.dump(encode(json.loads(sys.argv[1])), sys.stdout)
