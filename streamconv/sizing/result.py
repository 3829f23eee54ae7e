"""What a mix is in the end, and as JSON has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..forward.divergence import Estimate
from .pool import bits


@dataclass(frozen=True)
class MixTensor:
    """What was chosen for one matrix.

    Attributes
    ----------
    standard_type : its type in the standard mix; empty where there is none
    reason : why, in a few words
    error, worst_row : relative weighted squared error of the type, and that of the row that loses most
    sensitivity : KL divergence in nats for each unit of relative error; None where it was not measured
    cost : predicted KL divergence of this tensor alone
    """

    name: str
    shape: tuple[int, ...]
    n_bytes: int
    type: str
    standard_type: str
    reason: str
    error: float
    worst_row: float
    sensitivity: float | None
    cost: float


@dataclass(frozen=True)
class MixSide:
    """One of the two mixes that were compared: bytes of the file, KL divergence as predicted and as measured (None: it was not)."""

    name: str
    n_bytes: int
    predicted_kl: float
    measured_kl: Estimate | None = None


@dataclass(frozen=True)
class Mix:
    """The result.

    Attributes
    ----------
    target : bytes that were asked for
    type : file type to convert with; decides nothing of the tensors that are listed
    tensors : in the order of the file
    own : the mix made from errors; ``standard``: the best standard one that fits, if one does
    difference : mean of own - standard over positions of the held-out text; None where it was not measured
    standard_kept : whether ``tensors`` are those of the standard mix, as it is not worse
    reference_type : the type that sensitivities were measured with
    n_measured, n_checked : tokens
    """

    source: str
    target: int
    n_bytes: int
    bits_per_weight: float
    type: str
    tensors: Sequence[MixTensor]
    own: MixSide
    standard: MixSide | None
    difference: Estimate | None
    standard_kept: bool
    reference_type: str
    n_measured: int
    n_checked: int

    @property
    def chosen(self) -> MixSide:
        """The side that ``tensors`` are of."""
        assert self.standard is not None or not self.standard_kept
        return self.standard if self.standard_kept and self.standard is not None else self.own


def as_json(mix: Mix) -> dict[str, Any]:
    """``mix`` as JSON has it."""

    def side(found: MixSide | None) -> dict[str, Any] | None:
        if found is None:
            return None
        kl = found.measured_kl
        return {
            "name": found.name, "bytes": found.n_bytes, "predicted_kl": found.predicted_kl,
            "measured_kl": None if kl is None else kl.value, "measured_kl_uncertainty": None if kl is None else kl.uncertainty,
        }  # fmt: skip

    difference = mix.difference
    return {
        "source": mix.source, "target": mix.target, "bytes": mix.n_bytes, "bits_per_weight": mix.bits_per_weight,
        "type": mix.type,
        "standard_kept": mix.standard_kept, "mix": side(mix.own), "standard": side(mix.standard),
        "difference": None if difference is None else difference.value,
        "difference_uncertainty": None if difference is None else difference.uncertainty,
        "reference_type": mix.reference_type, "tokens_measured": mix.n_measured, "tokens_compared": mix.n_checked,
        "tensors": [
            {
                "name": t.name, "shape": list(t.shape), "bytes": t.n_bytes, "type": t.type,
                "bits": bits(t.type), "standard_type": t.standard_type, "reason": t.reason, "error": t.error,
                "worst_row_error": t.worst_row, "sensitivity": t.sensitivity, "cost": t.cost,
            }
            for t in mix.tensors
        ],
    }  # fmt: skip
