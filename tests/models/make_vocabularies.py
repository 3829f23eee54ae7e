"""Writes the vocabularies and the chat templates of ``streamconv/models/data`` from those that llama.cpp has.

python tests/models/make_vocabularies.py FOLDER      llama.cpp's ``models``
"""

from __future__ import annotations

import json
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
    pack("\n".join(lines), name)


def pack(text: str, name: str) -> None:
    """One file of the package's data."""
    (DATA / name).write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


#: what the package calls a template -> llama.cpp's file
TEMPLATES = {
    "deepseek-v4": "deepseek-ai-DeepSeek-V4", "deepseek-v4-0731": "deepseek-ai-DeepSeek-V4-Flash-0731", "kimi-k3": "Kimi-K3",
    "minimax-m1": "MiniMax-M1", "mistral-v11": "Mistral-Small-3.2-24B-Instruct-2506",
    "mistral-v13": "unsloth-mistral-Devstral-Small-2507", "rwkv-world": "llama-cpp-rwkv-world",
}  # fmt: skip


if __name__ == "__main__":
    written(sys.argv[1], "gpt-neox", "gpt_neox.xz")
    written(sys.argv[1], "llama-spm", "llama_2.xz")
    folder = Path(sys.argv[1]) / "templates"
    texts = {name: (folder / f"{file}.jinja").read_text(encoding="utf-8") for name, file in TEMPLATES.items()}
    pack(json.dumps(texts), "templates.xz")
