"""NaN and infinity in the data: values of floats, factors of the groups of I8. SFP and NUQ have none.

Data stream through a fixed window and are released behind it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...models.gemma_cpp.reading import Contents
from ...quant.sbs.types import SBS_TYPES
from ...rows import Bytes
from ..finding import Finding

#: bytes looked at between two hints; of whole groups of every type
_WINDOW_BYTES = 132 << 15
_INFINITY_16, _INFINITY_32 = 0x7F80, 0x7F800000


def check(found: Contents) -> Iterator[Finding]:
    """One finding for each tensor that holds something not finite."""
    for name, tensor in found.tensors.items():
        if found.fault(name) or tensor.type not in ("F32", "BF16", "I8"):
            continue
        blob, bad = found.blobs[tensor.blob], 0
        for at in range(0, blob.n_bytes, _WINDOW_BYTES):
            n = min(_WINDOW_BYTES, blob.n_bytes - at)
            blob.file.prefetch(blob.offset + at + n, _WINDOW_BYTES)
            bad += _not_finite(blob.file.view(blob.offset + at, n), tensor.type)
            blob.file.release(blob.offset + at, n)
        if bad:
            what = "groups have factors that are" if tensor.type == "I8" else "values are"
            yield Finding("error", f"{found.place(name)}: {bad} {what} NaN or infinite", name)


def _not_finite(data: Bytes, kind: str) -> int:
    """How many values, of I8 groups, are not finite."""
    if kind == "F32":
        return int(np.count_nonzero((data.view("<u4") & _INFINITY_32) == _INFINITY_32))
    if kind == "BF16":
        return int(np.count_nonzero((data.view("<u2") & _INFINITY_16) == _INFINITY_16))
    i8 = SBS_TYPES["I8"]
    starts = np.arange(0, len(data), i8.head + i8.group)
    heads = data[starts[:, None] + np.arange(i8.head)].view("<u2")
    return int(np.count_nonzero(((heads & _INFINITY_16) == _INFINITY_16).any(axis=1)))
