"""Llama that looks both ways, for embeddings."""

from __future__ import annotations

from dataclasses import replace

from . import llama

FAMILY = replace(
    llama.FAMILY, arch="llama-embed", architectures=("LlamaBidirectionalModel",), idle=("pooling",),
    classes={"llama_bidirec": llama.FAMILY.classes["llama"], "llama": llama.FAMILY.classes["llama"]},
)  # fmt: skip
