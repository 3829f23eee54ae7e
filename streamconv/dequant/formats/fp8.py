"""8-bit floats with scales: DeepSeek and Qwen blocks, one scale for the tensor or for each row, stacks of experts.

``value · scale`` in float32, whatever the key is called: ``weight_scale_inv`` is multiplied too. Weights of these checkpoints
have no type of their own, so the product stays float32; those of compressed-tensors have the type of their scales.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import BadInput
from ...sources.naming import shown
from ..format import LOST, Format
from ..grid_rows import Float8Rows, Grid, grid_for
from ..ranks import RankRows, ranks_of
from ..raw import Raw
from ..store import Store

_FLOAT8 = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
_SCALES = ("F32", "F16", "BF16", "F8_E8M0", "U8")
#: side of a block where config.json says nothing
_BLOCK = (128, 128)


def find(store: Store) -> None:
    """Recognise 8-bit floats by their type, and by the scale beside them.

    Raises
    ------
    BadInput : a scale is missing or does not fit; names file and tensor
    """
    for name in [name for name, rows in store.tensors.items() if rows.dtype in _FLOAT8]:
        if name.endswith((".weight_scale", "_scale_inv", ".compressed")):
            continue  # of other formats
        with store.about(name, name):
            scale = _scale_of(store, name)
            if scale is not None:
                _put(store, name, store.raw(name), scale)
            elif store.scheme.method:
                raise BadInput(
                    f"{store.where(name)}: tensor {shown(name)} is {store.tensors[name].dtype} without a weight_scale"
                )


def _scale_of(store: Store, name: str) -> Raw | None:
    stem = name.removesuffix("weight")
    for key in (f"{name}_scale_inv", f"{name}_scale", f"{stem}qscale_weight", f"{name}_weight_scale", f"{stem}scale"):
        if key in store and key != name:
            return store.companion(name, key, _SCALES)
    return None


def _put(store: Store, name: str, codes: Raw, scale: Raw) -> None:
    module = name.removesuffix(".weight")
    block = block_of(store.scheme.values, store.scheme.weights_of(module))
    ranks = ranks_of(store.config, name, codes.shape, scale.shape, block)
    grid = ranks[0] if ranks else _grid(codes.shape, scale.shape, block)
    if grid is None:
        raise BadInput(
            f"{scale} has shape {list(scale.shape)}, which does not fit {shown(name)} of shape {list(codes.shape)} with blocks of"
            f" {block[0]} x {block[1]}"
        )
    own_type = store.scheme.method == "compressed-tensors" and scale.dtype in ("F16", "BF16")
    kind = codes.dtype.removeprefix("F8_").lower()
    made = (
        name, codes.shape, scale.dtype if own_type else "F32", f"fp8-{kind} ({describe(grid, codes.shape)})", [codes, scale],
        grid, "F8_E8M0" if scale.dtype == "U8" else None,
    )  # fmt: skip
    store.put(name, RankRows(*made, ranks[1]) if ranks else Float8Rows(*made))


def _grid(shape: tuple[int, ...], scale: tuple[int, ...], block: Sequence[int]) -> Grid | None:
    """How scales lie over the codes. ModelOpt has an axis of length one behind that of the rows and that of the columns of blocks,
    and blocks of any one size; scales of single groups are those of MXFP8."""
    if len(scale) == len(shape) + 2 and len(shape) > 1 and (scale[-3], scale[-1]) == (1, 1):
        scale = (*scale[:-4], scale[-4], scale[-2])
        rows, columns = shape[-2] / max(1, scale[-2]), shape[-1] / max(1, scale[-1])
        if grid_for(shape, scale, block) is None and rows == columns:
            block = (int(rows), int(columns))
    return grid_for(shape, scale, block) or grid_for(shape, scale)


def block_of(values: Mapping[str, Any], arguments: Mapping[str, Any]) -> Sequence[int]:
    """Rows and columns of a block, from ``weight_block_size`` or a group's ``block_structure``.

    Raises
    ------
    BadInput : it is not two sizes
    """
    for stated in (values.get("weight_block_size"), arguments.get("block_structure")):
        if stated is not None:
            if not isinstance(stated, list) or len(stated) != 2 or not all(type(b) is int and b > 0 for b in stated):
                raise BadInput(
                    f"config.json: quantization_config: the block size is {shown(str(stated))}, not two sizes"
                )
            return stated
    return _BLOCK


def describe(grid: Grid, shape: tuple[int, ...]) -> str:
    """What has a scale, for people."""
    if grid.width < shape[-1]:
        return f"block {grid.rows} x {grid.width}" if grid.rows > 1 else f"group {grid.width}"
    return "per channel" if grid.rows == 1 else "per tensor"


FORMAT = Format(
    find,
    methods=("fp8", "fbgemm_fp8"),
    settings=(
        "weight_block_size",
        "fmt",
        "format",
        "scale_fmt",
        "scale_format",
        "is_checkpoint_fp8_serialized",
        "activation_scale_ub",
        "bits",
        "quant_type",
        "weight_dtype",
        "store_dtype",
        "mxfp4_block_size",
        "expert_dtype",
    ),
    parts={r"(\.weight|_proj)_scale_inv$": LOST},
    likely_parts={r"\.(weight_scale|qscale_weight)$": LOST},
)
