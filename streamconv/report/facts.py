"""What pages show, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tensor:
    """A tensor of an output.

    Attributes
    ----------
    shape : slowest dimension first
    source_type, type : how it was stored, how it is written
    reason : why it has that type
    error : ‖decoded − source‖ / ‖source‖ on a sample of its rows; None where nothing was measured
    weighted : the same with every column counted by its importance; None without an importance matrix
    """

    name: str
    shape: Sequence[int]
    source_type: str
    type: str
    n_bytes: int
    reason: str = ""
    error: float | None = None
    weighted: float | None = None

    @property
    def n_weights(self) -> int:
        """Numbers in it."""
        return int(np.prod(self.shape, dtype=np.int64)) if self.shape else 1

    @property
    def bits(self) -> float:
        """Bits per weight; 0 without weights."""
        return 8 * self.n_bytes / self.n_weights if self.n_weights else 0.0

    @property
    def is_matrix(self) -> bool:
        """Whether it has rows; vectors are never quantized and weigh next to nothing."""
        return len(self.shape) > 1


@dataclass(frozen=True)
class Output:
    """One output of a conversion: a file, its shards, or a folder."""

    path: str
    type: str
    arch: str
    tensors: Sequence[Tensor]


@dataclass(frozen=True)
class Converted:
    """A conversion.

    Attributes
    ----------
    source : what was converted
    input_bytes, output_bytes : of all files read and written
    seconds : of this run; None where the output was there already
    resumed_bytes : of the output, made by earlier runs
    peak_bytes : private memory; 0 where it was not looked at
    progress : of this run: seconds since it began, and bytes of the output that were made by then
    importance : names of importance matrices
    notes : what else a reader should know
    version : of this program
    """

    source: str
    outputs: Sequence[Output]
    input_bytes: int
    output_bytes: int
    seconds: float | None = None
    resumed_bytes: int = 0
    peak_bytes: int = 0
    progress: Sequence[tuple[float, int]] = ()
    importance: Sequence[str] = ()
    notes: Sequence[str] = ()
    version: str = ""


@dataclass(frozen=True)
class Compared:
    """A model and the reference on the same text.

    Attributes
    ----------
    statistics : what ``compare --json`` prints: ``n``, ``perplexity``, ``kl_divergence``, ``token_probability``
    divergence : float64[n_chunks, n_scored] KL divergence at every position
    perplexity, base_perplexity : of the model and of the reference, after every chunk
    """

    model: str
    statistics: Mapping[str, Any]
    divergence: NDArray[np.float64]
    perplexity: Sequence[float]
    base_perplexity: Sequence[float]


@dataclass(frozen=True)
class Candidate:
    """A choice of types for a whole model, and how good it is.

    Attributes
    ----------
    name : such as ``mix`` or ``Q4_K_M``
    n_bytes : of the file
    divergence, uncertainty : mean KL divergence from the reference and one standard deviation; None where it was not measured
    predicted : what was expected before it was measured, or None
    """

    name: str
    n_bytes: int
    divergence: float | None = None
    uncertainty: float = 0.0
    predicted: float | None = None


@dataclass(frozen=True)
class MixedTensor:
    """A tensor of what is used, the mix or the standard one.

    Attributes
    ----------
    type, standard : in what is used, and in the standard mix; the latter is empty where there is none
    error : relative error of the type; None where it was not measured
    sensitivity : KL divergence for each unit of squared relative error; None where it was not measured
    cost : predicted KL divergence of this tensor alone
    reason : why it has that type
    """

    name: str
    shape: Sequence[int]
    type: str
    n_bytes: int
    standard: str
    error: float | None = None
    sensitivity: float | None = None
    cost: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Mixed:
    """A mix for a size.

    Attributes
    ----------
    target_bytes : the size that was asked for
    bits : bits per weight of what is used
    mix : what was chosen from measured errors
    standards : standard mixes, the one that the mix is judged against first
    is_kept : whether the mix is used; else the standard one is
    verdict : why, in a sentence
    difference : mean of the mix less the standard one, position by position, and one standard deviation; None if not measured
    text : name of the text that was held out for the comparison, with what belongs to it
    """

    source: str
    target_bytes: int
    bits: float
    mix: Candidate
    standards: Sequence[Candidate]
    is_kept: bool
    verdict: str
    tensors: Sequence[MixedTensor]
    difference: tuple[float, float] | None = None
    text: str = ""
    importance: Sequence[str] = ()
    notes: Sequence[str] = field(default=())
    version: str = ""
