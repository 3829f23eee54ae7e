"""Writes ``tests/data/text/tokens.json.xz``: what real llama.cpp makes of hostile texts.

PYTHONPATH=tests:. python tests/text/make_tokens.py PYTHON-OF-THE-PEERS

``{"pre": {name: [tokens of each text]}, "kinds": {name: [four lists for each text]}}``; the texts and the vocabularies are those of
``asked``. Of pre-tokenizers that split alike only the first one is there.
"""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
import tempfile
from pathlib import Path

from hostile_texts import hostile_texts
from small_vocabularies import Keys, all_kinds, byte_pairs, write

from streamconv.text.pretokenizers import NAMES, pre_tokenizer

TESTS = Path(__file__).resolve().parents[1]
RECORDED = TESTS / "data" / "text" / "tokens.json.xz"


def first_of_each() -> list[str]:
    """Pre-tokenizers, one of those that do the same."""
    return list({pre_tokenizer(name): name for name in reversed(NAMES)}.values())


def asked(keys: Keys) -> list[bytes]:
    """The texts for a vocabulary."""
    types = keys["tokenizer.ggml.token_type"]
    special = [text for text, kind in zip(keys["tokenizer.ggml.tokens"], types, strict=True) if kind in (2, 3, 4)]
    return hostile_texts(17, 45, special)


def main(peers_python: str) -> None:
    peer = subprocess.Popen(
        [peers_python, str(TESTS / "oracle" / "llama_peer.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert peer.stdin is not None
    assert peer.stdout is not None
    recorded: dict[str, dict[str, list[object]]] = {"pre": {}, "kinds": {}}
    vocabularies = [("pre", name, byte_pairs(name)) for name in first_of_each()]
    vocabularies += [("kinds", name, keys) for name, keys in all_kinds().items()]
    with tempfile.TemporaryDirectory() as folder:
        for group, name, keys in vocabularies:
            path = write(Path(folder) / "v.gguf", keys)
            texts = [text.decode("latin-1") for text in asked(keys)]
            peer.stdin.write(json.dumps({"do": "tokenize", "file": str(path), "texts": texts}) + "\n")
            peer.stdin.flush()
            answer = json.loads(peer.stdout.readline())
            assert answer["ok"], (name, answer)
            recorded[group][name] = [lists[2] if group == "pre" else lists for lists in answer["tokens"]]
    RECORDED.parent.mkdir(exist_ok=True)
    RECORDED.write_bytes(lzma.compress(json.dumps(recorded, separators=(",", ":")).encode(), preset=9))
    print(RECORDED, RECORDED.stat().st_size, "bytes")


if __name__ == "__main__":
    main(sys.argv[1])
