"""Perplexity of a model on a text, and how far models are from a reference."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import forward
from ..conversion import Opener, Options, open_runnable
from ..conversion.hub_models import HubModels
from ..engine import budget as budgets
from ..engine import files
from ..engine import run as runs
from ..errors import BadInput, Interrupted, Stopped, WriteFailed
from ..forward.chunks import Chunks
from ..forward.divergence import Divergence, Doubles
from .heads import Head, divergences, log_probabilities
from .request import Request, chunks_of, input_file, tokens_of
from .states import States, states_bytes
from .walk import Walk

AnyPath = str | os.PathLike[str]
