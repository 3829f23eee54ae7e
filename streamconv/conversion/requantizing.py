"""What to tell of weights that were quantized before: quantizing them again adds a second loss to the first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

from .. import dequant
from ..engine.run import Outcome
from ..quant.types import TYPES
from ..rows import Rows, walk
from ..sources.sbs import SbsRows
from .prepared import Output, OutputTensor, Prepared


def requantized(outputs: Iterable[Output]) -> Iterator[tuple[OutputTensor, str]]:
    """Every tensor that loses precision twice, and what it is stored as."""
    for output in outputs:
        for tensor in output.tensors:
            if tensor.encoding.type.block_size == 1 or tensor.encoding.copies:
                continue
            encoding = next(filter(None, map(_encoding, walk(tensor.item.rows))), None)
            if encoding is not None:
                yield tensor, encoding


def _encoding(rows: Rows) -> str | None:
    """What ``rows`` themselves are stored as, None for plain numbers."""
    if isinstance(rows, (dequant.DecodedRows, SbsRows)):
        return rows.encoding
    stored = TYPES.get(rows.dtype)  # of a GGUF file
    return stored.name if stored is not None and stored.block_size > 1 else None


def notes(outputs: Iterable[Output]) -> list[str]:
    """For the plan: which encodings meet a second one."""
    found = [encoding for _, encoding in requantized(outputs)]
    return [
        f"{count} tensors are stored as {encoding}: quantizing them again adds to that loss; --report FILE measures what is added"
        for encoding, count in Counter(found).items()
    ]


def measured(prepared: Prepared, outcome: Outcome) -> list[str]:
    """For the summary: the error that was added where it was measured, the largest and where."""
    errors = {}
    for tensor, _ in requantized(prepared.outputs):
        quality = outcome.quality.get((tensor.item.name, tensor.part))
        n = tensor.item.n_rows * tensor.item.n_cols
        if quality is not None and n and math.isfinite(quality.sum_squared_error):
            errors[tensor.name] = math.sqrt(quality.sum_squared_error / n)
    if not errors:
        return []
    ordered = sorted(errors, key=errors.__getitem__)
    middle, worst = ordered[len(ordered) // 2], ordered[-1]
    return [
        f"quantizing decoded weights again added an RMSE of {errors[middle]:.3g} in the median tensor and {errors[worst]:.3g}"
        f" in {worst}"
    ]
