"""Puts the stages together: source → model → types → layout → plan, and runs it.

This package is the only one that knows all stages; none of them knows another except through the row-source protocol.
"""

from .adapter import prepare_adapter
from .execution import budget_of, execute
from .fetching import Fetched, fetch
from .opening import Opener, open_rows
from .options import Options
from .outputs import prepare
from .planning_again import prepare_again
from .prepared import Output, OutputTensor, Prepared
from .recipe import Recipe
from .report_page import Run
from .reports import describe, write_report
from .requantizing import measured
from .reuse import planned_copies, told_of_copies
from .running import logits, open_runnable
from .target import Chosen, Draft, Target
from .targets import TARGETS
from .type_rules import rules_of
from .unfinished import status
from .verifying import verify
from .verifying_store import VerifiedStore, verify_store

__all__ = [
    "TARGETS",
    "Chosen",
    "Draft",
    "Fetched",
    "Opener",
    "Options",
    "Output",
    "OutputTensor",
    "Prepared",
    "Recipe",
    "Run",
    "Target",
    "VerifiedStore",
    "budget_of",
    "describe",
    "execute",
    "fetch",
    "logits",
    "measured",
    "open_rows",
    "open_runnable",
    "planned_copies",
    "prepare",
    "prepare_adapter",
    "prepare_again",
    "rules_of",
    "status",
    "told_of_copies",
    "verify",
    "verify_store",
    "write_report",
]
