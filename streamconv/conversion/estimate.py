"""How long a plan will take, roughly: known before anything is read, within a factor of two on a present laptop or server.

Processor time is what ``streamconv bench`` measured for a type on this processor, else what it did on one core of an Intel
Xeon of 2023 (AVX-512); the disk is taken to read and write half a gigabyte a second. What has to be fetched is not counted.
"""

from __future__ import annotations

from collections.abc import Collection

from ..quant import speed
from ..quant.encode import EncodedRows
from ..rows import merge_of
from .prepared import Prepared

_DISK_BYTES_PER_S = 0.5e9
#: Python, numba, kernels from their cache
_START_S = 1.0
#: ns a byte: page faults of inputs; digests and writes of outputs
_READ_NS, _WRITE_NS = 0.2, 0.4
#: ns a weight and input that is merged, and more where the method looks at the whole tensor first
_MERGE_NS, _STATISTIC_NS = 2.0, 2.0
#: ns a weight: plain, with an importance matrix
_ENCODE_NS = {
    "Q4_0": (0.2, 2.8), "Q4_1": (0.2, 8), "Q5_0": (0.2, 2.8), "Q5_1": (0.3, 8), "Q8_0": (0.2, 0.2), "Q2_K": (4.5, 10),
    "Q3_K": (1.6, 3.6), "Q4_K": (4.9, 8.8), "Q5_K": (4.1, 8.8), "Q6_K": (3, 3.1), "IQ1_S": (20, 20),
    "IQ1_M": (21, 23), "IQ2_XXS": (33, 33), "IQ2_XS": (37, 37), "IQ2_S": (29, 28), "IQ3_XXS": (56, 56),
    "IQ3_S": (47, 46), "IQ4_NL": (5.3, 6.5), "IQ4_XS": (4.1, 5.1), "MXFP4": (0.3, 0.3), "NVFP4": (0.8, 0.8),
    "Q1_0": (0.4, 0.4), "NUQ": (110, 110), "SFP": (0.6, 0.6), "I8": (0.6, 0.6),
}  # fmt: skip
#: of every type that is not in the table: those are packed, not searched
_PACK_NS = 0.3


def seconds(prepared: Prepared, threads: int, copied: Collection[tuple[int, int]] = ()) -> float:
    """Seconds that the plan will take with ``threads`` workers, from the first weight to the last.

    Parameters
    ----------
    copied : numbers of items and parts that are copied from older outputs
    """
    plan = prepared.plan
    everything = [t for o in prepared.outputs for t in o.tensors]
    made = [t for t in everything if (t.item.number, t.part) not in copied]
    share = sum(t.encoding.n_bytes for t in made) / max(1, sum(t.encoding.n_bytes for t in everything))
    written = plan.total_bytes
    read = sum(int(i["size"]) for i in plan.inputs) * share + written * (1 - share)
    ns = read * _READ_NS + written * _WRITE_NS
    merged: set[int] = set()
    here = speed.measured()
    for tensor in made:
        item, encoding = tensor.item, tensor.encoding
        n = item.n_rows * item.n_cols
        if not encoding.copies:
            ns += n * _encode_ns(encoding.type.name, encoding.has_weights, here)
        how = merge_of(item.rows)
        if how is not None and item.number not in merged:  # several outputs share one merge
            merged.add(item.number)
            ns += n * how.n_inputs * (_MERGE_NS + how.looks_first * _STATISTIC_NS)
    return _START_S + max(ns / 1e9 / max(1, threads), (read + written) / _DISK_BYTES_PER_S)


def bytes_moved(prepared: Prepared) -> tuple[int, int]:
    """Bytes that are read and written."""
    return sum(int(i["size"]) for i in prepared.plan.inputs), prepared.plan.total_bytes


def ns_per_weight(item: EncodedRows) -> float:
    """Nanoseconds of one core that a weight takes, in all encodings; several outputs share one merge."""
    ns = sum(_encode_ns(e.type.name, e.has_weights, {}) for e in item.parts if not e.copies)
    made = merge_of(item.rows)
    return ns + (made.n_inputs * (_MERGE_NS + made.looks_first * _STATISTIC_NS) if made is not None else 0.0)


def _encode_ns(name: str, has_weights: bool, here: dict[str, speed.Speed]) -> float:
    """ns a weight of a tensor type on one core."""
    if (found := here.get(name)) is not None:
        plain, weighted = found.plain_ns, found.weighted_ns
        ns = (weighted or plain) if has_weights else (plain or weighted)
        if ns is not None:
            return ns
    return _ENCODE_NS.get(name, (_PACK_NS, _PACK_NS))[has_weights]
