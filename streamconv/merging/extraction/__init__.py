"""The other way round: a LoRA adapter from a model and the one it was tuned from.

The adapter is a checkpoint whose tensors are made while they are read, so it is written, and resumed, like any other output.
"""

from __future__ import annotations

from .modules import ModuleChoice
from .opening import Extraction, open_extraction

__all__ = ["Extraction", "ModuleChoice", "open_extraction"]
