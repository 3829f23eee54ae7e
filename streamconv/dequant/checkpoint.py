"""A checkpoint with its encoded tensors decoded: formats look for their anchors, and whatever is left over is judged."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import BadInput
from ..rows import Rows, walk
from ..sources.checkpoint import Checkpoint
from ..sources.naming import shown
from .column_rows import scale_columns
from .decoded_rows import DecodedRows
from .format import Format
from .formats import FORMATS, PLUGINS, formats_for
from .grid_rows import Float8Rows
from .scheme import Scheme
from .section import SIDE_FILES, read_scheme, without_scheme
from .settings import check_settings, check_turning
from .store import Store

#: every ``quant_method`` whose tensors are looked for
_METHODS = tuple(dict.fromkeys(method for form in FORMATS for method in form.methods))
#: types of numbers that codes are stored as
_CODES = ("U8", "I8", "U16", "I16", "U32", "I32", "F8_", "F4", "F6_")
#: tables and masks of whole numbers that models have without being quantized
_BUFFERS = re.compile(
    r"(^|[._])(position_ids?|token_type_ids|relative_position_index|num_batches_tracked|attn\.(masked_)?bias|attention\.(masked_)?bias"
    r"|tid2eid|summary_idxs|causal_mask|expert_map)$"
)
#: scales of activations and caches, which no weight needs
_ACTIVATIONS = re.compile(
    r"(^|[._])(input_scale(_ub)?|activation_scale|output_scale|qscale_act|input_zero_point|output_zero_point"
    r"|input_global_scale|[kvq]_scale|[kv]_zero_point)$|\.([kv])_proj\.\3_bias$"
)
#: conv1d layers of GPT-2, which bitsandbytes stores turned round
_TRANSPOSED = re.compile(r"\.(c_attn|c_proj|c_fc|q_attn)\.weight$")


def decoded(
    checkpoint: Checkpoint, quantization_config: Mapping[str, Any] | None = None, *, lenient: bool = False
) -> Checkpoint:
    """``checkpoint`` as if it had never been quantized; the same object where nothing is.

    Reads headers and, for bitsandbytes, a page of each weight that says its shape.

    Parameters
    ----------
    quantization_config : stands in for that section of config.json, for files that have none
    lenient : a tensor whose parts do not fit is refused when it is asked for, and the others can be had

    Returns
    -------
    Checkpoint : encoded tensors are ``DecodedRows`` of their logical shape and dtype, in the place of their packed data; their
        companions are gone, and so are config.json's section about them and the side files that repeat it

    Raises
    ------
    BadInput : an encoding that is not known, or a tensor whose parts are missing or contradict each other; names file and tensor
    """
    if checkpoint.metadata is not None:
        return checkpoint
    # a vocabulary alone can be had from any checkpoint
    scheme = read_scheme(checkpoint, quantization_config) if checkpoint.tensors else Scheme("", {})
    store = Store(checkpoint, scheme, lenient)
    formats = _look(store, asked=quantization_config is not None)
    if not lenient:
        _refuse_leftovers(store, formats)
    config = without_scheme(checkpoint.config)
    if not store.made and not store.broken and config == checkpoint.config:
        return checkpoint
    _note_turned(store)
    return dataclasses.replace(
        checkpoint,
        tensors=_Tensors(store.result(), store.broken) if store.broken else store.result(),
        config=config,
        side=_side(checkpoint, config),
        warnings=[*checkpoint.warnings, *store.warnings],
    )


def _look(store: Store, asked: bool) -> Sequence[Format]:
    """Let formats look for their tensors, as far as the section of config.json is one that is understood.

    ``asked``: the section was given by the caller, not found in a file, where it may be left over.
    """
    scheme = store.scheme
    known = scheme.method in (*_METHODS, *PLUGINS.names())
    has_codes = any(_holds_codes(name, rows) for name, rows in store.tensors.items())
    if scheme.values and not has_codes and not asked:
        check_turning(scheme, store.path)
    elif scheme.values and not known:
        raise BadInput(
            f"{store.path}: quantization_config: weights are stored as {shown(scheme.method)}, which cannot be decoded",
            f"Supported: {', '.join(_METHODS)}. Use the checkpoint this one was converted from.",
        )
    elif scheme.values:
        _check_section(store)
    formats = formats_for(scheme.method if known else "")
    for form in formats:
        form.find(store)
    scale_columns(store)
    if scheme.values and not has_codes and not store.made:
        store.warnings.append(
            f"config.json has a quantization_config ({shown(scheme.said or 'without quant_method')}), but no tensor is stored so:"
            " the weights are not quantized, and are used as they are"
        )
    if scheme.method or store.made:
        for name in store.tensors:
            if _ACTIVATIONS.search(name):
                store.drop(name)
    return formats


def _check_section(store: Store) -> None:
    """Refuse a section that says what its format does not understand."""
    for form in formats_for(store.scheme.method):
        if store.scheme.method in form.methods:
            if form.settings is not None:
                check_settings(store.scheme, store.path, form.settings)
            form.check(store)


def _holds_codes(name: str, rows: Rows) -> bool:
    """Whether a tensor can only be codes of something."""
    is_code = rows.dtype.startswith(_CODES) or (rows.dtype in ("I64", "U64") and len(rows.shape) > 1)
    return is_code and not _BUFFERS.search(name)


class _Tensors(Mapping[str, Rows]):
    """Tensors by name, some of which are refused when they are asked for."""

    def __init__(self, tensors: Mapping[str, Rows], broken: Mapping[str, BadInput]) -> None:
        self._tensors = tensors
        self._broken = broken

    def __getitem__(self, name: str) -> Rows:
        if name in self._broken:
            raise self._broken[name]
        return self._tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self._broken or name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter({**self._tensors, **self._broken})

    def __len__(self) -> int:
        return len({**self._tensors, **self._broken})


def as_saved(checkpoint: Checkpoint) -> Checkpoint:
    """``checkpoint``, its decoded tensors the way round in which a plain one has them."""
    if not any(isinstance(rows, DecodedRows) for rows in checkpoint.tensors.values()):
        return checkpoint
    tensors = checkpoint.tensors.items()
    return dataclasses.replace(
        checkpoint, tensors={n: rows.as_saved() if isinstance(rows, DecodedRows) else rows for n, rows in tensors}
    )


def decoders_of(rows: Rows) -> list[DecodedRows]:
    """The decoders that ``rows`` are or are made of; none for plain numbers."""
    return [found for found in walk(rows) if isinstance(found, DecodedRows)]


def scale_beside(rows: Rows, kind: str) -> Rows | None:
    """What the blocks of type ``kind`` that ``rows`` are copied as have to be multiplied by; None where that is nothing, or where
    there are no such blocks. The same object for the same rows."""
    if rows.native(kind, 0, 0) is None:
        return None
    return next((beside for found in decoders_of(rows) if (beside := getattr(found, "beside", None)) is not None), None)


def is_float8(rows: Rows) -> bool:
    """Whether all that ``rows`` are made of are 8-bit floats with scales."""
    return isinstance(rows, Float8Rows) or (bool(rows.sources) and all(map(is_float8, rows.sources)))


def decoder_of(rows: Rows) -> DecodedRows | None:
    """The first of ``decoders_of``."""
    return next(iter(decoders_of(rows)), None)


def _refuse_leftovers(store: Store, formats: Sequence[Format]) -> None:
    """Refuse parts that nothing was made of, and packed data without parts."""
    method = store.scheme.method
    parts = {ending: whose for form in formats for ending, whose in form.parts.items()}
    if method:
        parts.update((ending, whose) for form in formats for ending, whose in form.likely_parts.items())
    for name, rows in store.result().items():
        if isinstance(rows, DecodedRows):
            continue
        for ending, whose in parts.items():
            if found := re.search(ending, name):
                where = f"{store.where(name)}: tensor {shown(name)}"
                raise BadInput(f"{where} is part of {whose}", _advice(store, name, name[: found.start()]))
        if method:
            _refuse_packed(store, name, rows)


def _advice(store: Store, part: str, module: str) -> str:
    """What to do about a part of which nothing is made: the weight it belonged to may be plain by now."""
    for weight in (f"{module}.weight", module):
        rows = store.tensors.get(weight)
        if rows is not None and not _holds_codes(weight, rows):
            return (
                f"{shown(weight)} is plain {rows.dtype}: if that is the weight, save the model without {shown(part)}."
            )
    return "Fetch the checkpoint again."


def _refuse_packed(store: Store, name: str, rows: Rows) -> None:
    """Codes that nothing was made of are those of an encoded weight, whatever is missing to decode it."""
    if len(rows.shape) < 2 or rows.dtype in ("I64", "U64") or not _holds_codes(name, rows):
        return
    is_bnb = store.scheme.method == "bitsandbytes"
    needed = {"U8": "quant_state" if is_bnb else "scale", "I8": "scale", "I32": "scale"}
    if rows.dtype == "I8" and is_bnb:
        needed["I8"] = f"{name.removesuffix('.weight')}.SCB"
    missing = f", and its {needed[rows.dtype]} is missing" if rows.dtype in needed and name.endswith(".weight") else ""
    raise BadInput(
        f"{store.where(name)}: tensor {shown(name)} holds {rows.dtype} codes{missing}"
        + ("" if missing else f", which do not belong to a weight stored as {shown(store.scheme.said)}"),
        "The checkpoint is incomplete, or in an encoding that cannot be decoded.",
    )


def _note_turned(store: Store) -> None:
    turned = [rows.name for rows in store.made if rows.encoding.startswith("bnb-") and _TRANSPOSED.search(rows.name)]
    if turned:
        store.warnings.append(
            f"{len(turned)} weights such as {shown(turned[0])} are stored as [outputs, inputs], as bitsandbytes does with GPT-2,"
            " and are kept that way"
        )


def _side(checkpoint: Checkpoint, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The side files without those that describe the encoding, and config.json without its section."""
    if not checkpoint.path.is_dir() and checkpoint.side is None:
        return None
    side: dict[str, Any] = {}
    for name in checkpoint.side_names():
        found = checkpoint.side_file(name)
        if name not in SIDE_FILES and found is not None:
            side[name] = found
    if "config.json" in side:
        side["config.json"] = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
    return side
