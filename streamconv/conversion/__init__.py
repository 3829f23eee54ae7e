"""Puts the stages together: source → model → types → layout → plan, and runs it.

This package is the only one that knows all stages; none of them knows another except through the row-source protocol.
"""

from .adapter import prepare_adapter
from .execution import budget_of, execute
from .fetching import Fetched, fetch
from .opening import RECIPES, open_rows, open_source
from .options import Options
from .outputs import prepare
from .prepared import Output, OutputTensor, Prepared
from .reports import describe, write_report

__all__ = [
    "RECIPES",
    "Fetched",
    "Options",
    "Output",
    "OutputTensor",
    "Prepared",
    "budget_of",
    "describe",
    "execute",
    "fetch",
    "open_rows",
    "open_source",
    "prepare",
    "prepare_adapter",
    "write_report",
]
