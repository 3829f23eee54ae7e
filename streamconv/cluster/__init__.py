"""One conversion on many processes, of this machine or of others that share the file system.

    coordinator   plans, opens the job, commits, publishes: all that a conversion without a cluster does, but makes no chunk
    board         which chunks are to be made, where, and once more (``board.py``: a state machine, which knows no network)
    pool          carries calls to workers and answers back (``dask_pool.py``; tests have one of their own)
    worker        plans for itself, compares, fills ranges of the part files, says what it made (``worker.py``)

``docs/cluster.md`` has the protocol. Nothing of Dask is imported before a pool is opened.
"""

from .advice import payoff, planned_tasks
from .coordinator import execute
from .where import Where

__all__ = ["Where", "execute", "payoff", "planned_tasks"]
