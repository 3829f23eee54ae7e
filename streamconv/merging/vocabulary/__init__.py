"""Vocabularies of a merge: one tokenizer for the output, and the rows of every model laid out for it.

Tokens are told by their text. A model that lacks a token takes a default row for it, which a recipe may choose; whatever needs
rows of other models reads them while rows stream by, so no embedding is ever held.
"""

from __future__ import annotations

from .differences import differences
from .plan import VocabularyPlan, plan_vocabulary

__all__ = ["VocabularyPlan", "differences", "plan_vocabulary"]
