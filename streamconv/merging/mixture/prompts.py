"""Token ids of prompts, made in a process of its own.

Run as a script: the ``tokenizers`` library keeps its memory and aborts on some damaged files. Imports nothing of ours then.

Standard input : JSON ``{"tokenizer": tokenizer.json as text, "texts": [str]}``
Standard output : JSON ``[[int]]``, or ``{"error": str}``
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

#: a damaged tokenizer can keep the library busy for ever; whole ones take a second
_TIMEOUT_S = 300
_CPU_S, _MEMORY_BYTES = 60, 4 << 30


def token_ids(tokenizer: str, texts: Sequence[str]) -> list[list[int]] | str:
    """Token ids of ``texts`` without the special tokens of the template, or what went wrong.

    Parameters
    ----------
    tokenizer : content of tokenizer.json
    """
    request = json.dumps({"tokenizer": tokenizer, "texts": list(texts)})
    try:
        done = subprocess.run(
            [sys.executable, __file__], input=request.encode(), capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it takes longer than {_TIMEOUT_S} s"
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        return "the tokenizers library gave up on it"
    return str(answer["error"]) if isinstance(answer, dict) else answer


def _encode(request: dict[str, Any]) -> Any:
    try:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(request["tokenizer"])
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return [tokenizer.encode(text, add_special_tokens=False).ids for text in request["texts"]]
    except BaseException as e:  # the library's panics derive from BaseException
        return {"error": str(e) or type(e).__name__}


def _bound() -> None:
    """Take no more processor time and memory than any tokenizer needs."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        for kind, most in ((resource.RLIMIT_CPU, _CPU_S), (resource.RLIMIT_AS, _MEMORY_BYTES)):
            soft, hard = resource.getrlimit(kind)
            known = [limit for limit in (soft, hard, most) if limit != resource.RLIM_INFINITY]
            resource.setrlimit(kind, (min(known), hard))


if __name__ == "__main__":
    _bound()
    json.dump(_encode(json.load(sys.stdin)), sys.stdout)
