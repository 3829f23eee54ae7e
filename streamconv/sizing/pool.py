"""What there is to choose from: the matrices of a planned output, the types each may have, and the standard mixes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..conversion import Options, OutputTensor, Prepared, prepare, rules_of
from ..errors import UsageError
from ..file_names import TYPE_FIELD
from ..quant import imatrix
from ..quant.filetypes import BY_NUMBER, parse_tensor_type
from ..quant.mix import fitted
from ..quant.mix_rules import NEEDS_IMATRIX
from ..quant.types import TYPES, TensorType
from ..rows import Floats, Rows, matrix_shape

#: candidates unless told otherwise: what every runtime decodes fast
USUAL = ("Q2_K", "Q3_K", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
#: what every matrix may be quantized to for its sensitivity: fast to make, and errors are small enough to add up
_REFERENCES = ("Q3_K", "Q4_K", "Q5_K", "Q6_K")
#: planned where no file type is asked for; decides nothing of the matrices
_ANY_TYPE = "Q4_K_M"
#: a rule after those of the user, which finds what they leave open
_OPEN = "^.*$"
#: tensors begin at multiples of this in a file
_ALIGNMENT = 32


def padded(n_bytes: int) -> int:
    """Bytes of a tensor with what follows it."""
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT


def bits(name: str) -> float:
    """Bits of a weight of a tensor type."""
    return 8 * TYPES[name].block_bytes / TYPES[name].block_size


@dataclass(frozen=True)
class Matrix:
    """A matrix of the output.

    Attributes
    ----------
    weights, visits : importance of its columns for each expert, and tokens that reached each; None where nothing says
    types : candidate -> the type that it becomes for this shape; where the user gave one, it is the only one
    given : why the type is not open; empty where it is
    """

    name: str
    rows: Rows
    weights: Floats | None
    visits: NDArray[np.float64] | None
    types: Mapping[str, str]
    given: str = ""

    @property
    def n_params(self) -> int:
        """Its weights."""
        n_rows, n_cols = matrix_shape(self.rows.shape)
        return n_rows * n_cols

    def measured_with(self, reference: str) -> str:
        """The type that its sensitivity is measured with, where that of most is ``reference``."""
        usual = None if self.given else fitted(TYPES[reference], self.rows.shape[-1])
        return min(self.types.values()) if usual is None else usual.name

    def n_bytes(self, type_name: str) -> int:
        """Its bytes in a type, with what follows."""
        n_rows, n_cols = matrix_shape(self.rows.shape)
        return padded(n_rows * TYPES[type_name].row_bytes(n_cols))


@dataclass(frozen=True)
class Standard:
    """A standard mix: its file type, the bytes of its file, and the type of every matrix."""

    name: str
    n_bytes: int
    types: Mapping[str, str]


@dataclass(frozen=True)
class Pool:
    """All that can be chosen from.

    Attributes
    ----------
    matrices : in the order of the file
    others_bytes : bytes of the file that are not theirs
    n_params, others_data : weights of the file; bytes of tensors that are not theirs
    standards : standard mixes, the smallest first
    fingerprint : what decides source, importance and rules
    """

    matrices: Sequence[Matrix]
    others_bytes: int
    n_params: int
    others_data: int
    standards: Sequence[Standard]
    fingerprint: str

    def size_of(self, types: Mapping[str, str]) -> int:
        """Bytes of the file with these types."""
        return self.others_bytes + sum(m.n_bytes(types[m.name]) for m in self.matrices)

    def bits_per_weight(self, types: Mapping[str, str]) -> float:
        """Of the file with these types, as a conversion tells it."""
        own = sum(
            m.n_params // TYPES[types[m.name]].block_size * TYPES[types[m.name]].block_bytes for m in self.matrices
        )
        return 8 * (self.others_data + own) / self.n_params


def reference_for(bits_per_weight: float) -> str:
    """The type that sensitivities are measured with: the next below what there is for a weight.

    Errors of other sizes cost more or less than in proportion to them, so theirs should be about those of the mix.

    >>> reference_for(4.85), reference_for(2.9)
    ('Q4_K', 'Q3_K')
    """
    return max((name for name in _REFERENCES if bits(name) <= bits_per_weight), key=bits, default=_REFERENCES[0])


def candidates(text: str | None, has_imatrix: bool) -> list[TensorType]:
    """The types that ``--types`` names.

    Raises
    ------
    UsageError : one is unknown, is no block type, or needs an importance matrix that is not there
    """
    found = [parse_tensor_type(name) for name in (text.split(",") if text is not None else USUAL)]
    for each in found:
        if each.block_size == 1:
            raise UsageError(f"--types: {each.name} is not a quantized type", f"For example --types {','.join(USUAL)}.")
        if each.name in NEEDS_IMATRIX and not has_imatrix:
            raise UsageError(f"--types: {each.name} needs an importance matrix", "Add --imatrix FILE, or leave it out.")
    return list(dict.fromkeys(found))


def open_pool(source: str, output: Path, types: Sequence[TensorType], only_these: bool, options: Options) -> Pool:
    """Plan ``output`` to see what it will hold; nothing is written.

    Parameters
    ----------
    only_these : leave out standard mixes that have other types

    Raises
    ------
    UsageError : no type is open; and see ``conversion.prepare``
    """
    options = replace(options, tensor_types=rules_of(options), tensor_type_file=None)
    kind = _ANY_TYPE if options.type == "auto" else options.type
    probed = planned(source, output, replace(options, type=kind, tensor_types=(*options.tensor_types, f"{_OPEN}=Q8_0")))
    found = (
        imatrix.load_imatrix(options.imatrix, options.include_weights, options.exclude_weights)
        if options.imatrix
        else None
    )
    tensors = probed.outputs[0].tensors
    matrices = [matrix for t in tensors if (matrix := _matrix(t, types, found)) is not None]
    if not matrices and any(": columns " in t.reason for t in tensors):
        raise UsageError(
            f"no tensor of {source} can be quantized: the columns of none are a multiple of 32, so there is nothing to choose",
            "Convert it without --size or --bpw, for example with --type F16.",
        )
    if all(matrix.given for matrix in matrices):
        raise UsageError(
            f"no tensor of {source} has a type that is open: files of type {kind}, or other options, decide all of them",
            "Leave out the options that give types, such as --tensor-type-file, or the size."
            if matrices
            else "Leave --type out, or give a quantized one.",
        )
    own = {matrix.name for matrix in matrices}
    now = {t.name: t.encoding for t in tensors}
    return Pool(
        matrices,
        probed.plan.total_bytes - sum(padded(now[name].n_bytes) for name in own),
        probed.outputs[0].n_params,
        sum(encoding.n_bytes for name, encoding in now.items() if name not in own),
        _standards(source, output, matrices, {t.name for t in types}, only_these, options, found is not None),
        probed.plan.fingerprint.hex(),
    )


def planned(source: str, output: Path, options: Options) -> Prepared:
    """A plan that is not carried out."""
    prepared = prepare(source, output, options)
    prepared.close()
    return prepared


def _matrix(t: OutputTensor, types: Sequence[TensorType], found: imatrix.Imatrix | None) -> Matrix | None:
    """What may become of ``t``; None where it is not quantized."""
    rows, weights = t.item.rows, t.encoding.weights
    visits = None
    if weights is not None and len(weights) > 1 and found is not None:
        counts = found.visits(t.name)
        if counts is not None and len(counts) == len(weights) and counts.any():
            visits = counts.astype(np.float64)
    if not t.reason.startswith(f"--tensor-type {_OPEN}="):
        name = t.encoding.type.name
        # A type that an option gives belongs to the list even where it is a float: the list is to do without the option.
        listed = t.encoding.type.block_size > 1 or (len(rows.shape) > 1 and t.reason.startswith("--"))
        return Matrix(t.name, rows, weights, visits, {name: name}, t.reason) if listed else None
    fits = {each.name: fitted(each, t.item.n_cols) for each in types}
    able = {
        name: each.name
        for name, each in fits.items()
        if each is not None and (weights is not None or each.name not in NEEDS_IMATRIX)
    }
    if not able:
        raise UsageError(
            f"--types: none of {', '.join(fits)} is possible for {t.name}, which has {t.item.n_cols} columns"
            + ("" if weights is not None else " and no entry in an importance matrix"),
            "Add Q8_0 to --types.",
        )
    return Matrix(t.name, rows, weights, visits, able)


def _standards(
    source: str,
    output: Path,
    matrices: Sequence[Matrix],
    types: set[str],
    only_these: bool,
    options: Options,
    has_imatrix: bool,
) -> list[Standard]:
    """The standard mixes of ``types``, by size."""
    fitting = [
        f for f in BY_NUMBER.values()
        if f.selectable and f.default is not None and f.default.name in types and f.name not in ("Q2_K_S", "MXFP4_MOE")
    ]  # fmt: skip
    usual = [f.name for f in fitting if not f.name.startswith(("IQ1", "IQ2", "IQ3"))]
    both = [f.name for f in fitting] if has_imatrix else usual
    path = output.with_name(f"{output.stem.replace(TYPE_FIELD, '')[:100]}.mix-{TYPE_FIELD}.gguf")
    found: list[Standard] = []
    for names in (both, usual):
        if not names:
            continue
        try:
            prepared = planned(source, path, replace(options, type=",".join(names)))
        except UsageError:  # a type without importance weights, or one that fits no columns
            continue
        for each in prepared.outputs:
            sizes = sum(prepared.plan.files[k].size for k in each.files)
            found.append(Standard(each.type, sizes, {t.name: t.encoding.type.name for t in each.tensors}))
        break
    if only_these:
        own = {m.name: {*m.types.values()} for m in matrices}
        found = [s for s in found if all(s.types[name] in allowed for name, allowed in own.items())]
    return sorted(found, key=lambda s: (s.n_bytes, s.name))


def rule(name: str, type_name: str) -> str:
    """A rule for the tensor ``name`` and no other; patterns are read in lower case."""
    pattern = "".join("." if c.isupper() else re.escape(c) for c in name)
    return f"^{pattern}$={type_name}"
