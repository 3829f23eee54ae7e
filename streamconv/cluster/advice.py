"""Whether workers will make a conversion faster, from bytes and bandwidth: known before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..conversion import Options, Prepared
from ..conversion.estimate import bytes_moved, ns_per_weight
from ..engine.budget import default_threads
from ..engine.plan import bundles
from ..units import size
from .tasks import cut
from .where import Where

#: a shared store on 10 Gbit/s Ethernet moves so much
_STORE_BYTES_PER_S = 1.1e9


def payoff(prepared: Prepared, options: Options) -> dict[str, Any]:
    """What workers would have to do, JSON-able: ``tasks``, ``core_bytes_per_s``, ``fed_cores`` and ``advice``."""
    where = Where.parse(str(options.cluster), options.cluster_tls)
    seconds = sum(ns_per_weight(item) * item.n_rows * item.n_cols for item in prepared.items) / 1e9
    read, written = bytes_moved(prepared)
    rate = (read + written) / max(seconds, 1e-9)
    fed = max(1, int(_STORE_BYTES_PER_S / max(rate, 1.0)))
    here = default_threads()
    if where.n_local:
        more = where.n_local * (options.threads or 1) > here
        advice = f"processes on one machine are no faster than its {here} threads" + (
            f", and {where.n_local} are more than it has" if more else ""
        )
    elif fed <= here:
        advice = (
            f"will not pay: a store of {_STORE_BYTES_PER_S / 1e9} GB/s feeds {fed} cores, and this machine has {here}"
        )
    else:
        advice = f"a store of {_STORE_BYTES_PER_S / 1e9} GB/s feeds {fed} cores; more of them wait for it"
    return {
        "workers": str(where),
        "tasks": len(cut(bundles(prepared.plan.chunks()), ns_per_weight, max(1, where.n_local))),
        "core_bytes_per_s": round(rate),
        "fed_cores": fed,
        "advice": advice,
    }


def planned_tasks(facts: Mapping[str, Any]) -> Iterator[str]:
    """What a plan with ``payoff`` in its facts says of it, in a line."""
    if found := facts.get("cluster"):
        rate = size(found["core_bytes_per_s"])
        yield f"cluster {found['workers']}: {found['tasks']} tasks; one core moves {rate}/s; {found['advice']}"
