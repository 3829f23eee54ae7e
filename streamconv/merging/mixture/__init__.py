"""Mixtures of experts made of dense models: their feed-forward layers side by side, behind a gate.

All else is the base model's. The gate is random, or made of the embeddings of prompts.
"""

from __future__ import annotations

from .assembly import assemble_mixture
from .recipe import Expert, Mixture, parse_mixture

__all__ = ["Expert", "Mixture", "assemble_mixture", "parse_mixture"]
