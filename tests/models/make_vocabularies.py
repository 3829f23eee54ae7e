"""Writes the vocabularies of ``streamconv/models/data`` from those that llama.cpp keeps for its tests.

python tests/models/make_vocabularies.py FOLDER      with ggml-vocab-gpt-neox.gguf and ggml-vocab-llama-spm.gguf
"""

from __future__ import annotations

import lzma
import sys
from pathlib import Path

from gguf import GGUFReader

DATA = Path(__file__).resolve().parents[2] / "streamconv" / "models" / "data"


def written(folder: str, source: str, name: str) -> None:
    """One vocabulary: see ``streamconv/models/tokenizers/brought_along.py`` for what is kept of it."""
    fields = GGUFReader(f"{folder}/ggml-vocab-{source}.gguf").fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    lines = tokens[3 + 256 :]
    if source == "gpt-neox":
        merges = fields["tokenizer.ggml.merges"].contents()
        lines = ["".join(text for text in tokens[2:] if len(text) == 1 and text != " "), *merges]
    packed = lzma.compress("\n".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME)
    (DATA / name).write_bytes(packed)


if __name__ == "__main__":
    written(sys.argv[1], "gpt-neox", "gpt_neox.xz")
    written(sys.argv[1], "llama-spm", "llama_2.xz")
