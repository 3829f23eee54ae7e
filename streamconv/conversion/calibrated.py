"""Importance weights for the tensors of a job, and what to tell of a matrix that fits them in part."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import BadInput
from ..quant import imatrix, mix_rules
from ..quant.types import TensorType
from ..rows import Floats, Rows
from ..sources.naming import shown_list


class Weights:
    """Importance weights of tensors, each looked up once for all outputs."""

    def __init__(self, found: imatrix.Imatrix | None) -> None:
        self.found = found
        self._known: dict[str, Floats | None] = {}
        self._sources: dict[str, bool] = {}

    def of(self, source: str, rows: Rows, type_: TensorType) -> Floats | None:
        """Those of the tensor ``source``, None where it has none or its type does not use them."""
        self._sources[source] = self._sources.get(source, False) or type_.block_size > 1
        if self.found is None or type_.block_size == 1:
            return None
        if source not in self._known:
            n_experts = rows.shape[0] if len(rows.shape) > 2 else 1
            self._known[source] = self.found.weights(source, rows.shape[-1], n_experts)
        return self._known[source]

    def told(self, pruned: bool) -> Iterator[str]:
        """For the plan: how far the importance matrix fits the tensors that were looked up.

        Parameters
        ----------
        pruned : the model has others that are left out

        Raises
        ------
        BadInput : it fits none of them
        """
        if self.found is None or not self._sources:
            return
        where, measured = ", ".join(map(str, self.found.files)), self.found.measured
        if not measured & self._sources.keys():
            raise BadInput(
                f"{where}: no entry of the importance matrix matches a tensor of this model; it has {shown_list(measured)}",
                "Use the matrix that llama-imatrix computed for this model's GGUF file.",
            )
        wanted = [name for name, in_blocks in self._sources.items() if in_blocks]
        if not any(name in self.found for name in wanted):
            yield f"{where}: the importance matrix has no effect, as it has no entry for a tensor that is quantized in blocks"
            return
        usual = [name for name in wanted if name not in mix_rules.UNCALIBRATED]
        lacking = [name for name in usual if name not in measured]
        if lacking:
            yield (
                f"{where}: {len(lacking)} of {len(usual)} quantized matrices have no entry in the importance matrix, such as"
                f" {lacking[0]}: they are quantized without it"
            )
        strange = measured - self._sources.keys() - mix_rules.UNCALIBRATED
        if strange and not pruned:
            yield (
                f"{where}: {len(strange)} of {len(measured)} entries match no tensor of this model, such as {min(strange)}:"
                " was the matrix computed for another model?"
            )
