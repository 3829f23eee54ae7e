"""The tensors: those that the model needs, of the shapes and types that the loader takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...models.gemma_cpp.model_config import ModelConfig
from ...models.gemma_cpp.reading import NO_TENSORS, Contents, entries_of
from ...models.gemma_cpp.tensors import BIAS, EMBEDDING, IMAGE_MATRIX, MATRIX, NORM, POSITIONS, Entry, tensors
from ...quant.sbs.types import SBS_TYPES
from ...sources.naming import shown_list
from ..finding import Finding

#: what a read takes at once, and of how many rows on tensors are read row by row
_AT_ONCE, _MANY_ROWS = 0x7FFFF000, 1024
#: the rows of a matrix, when the runtime multiplies by it, are a multiple of this
_ROWS = 4
#: of types that are no weights too, as the loader counts them
_BITS = {**{name: t.bits for name, t in SBS_TYPES.items()}, "F64": 64, "U32": 32, "U64": 64}
#: by layer: the fused tensor and those that stand in its place; the last of the last is not missed before it is used
_GROUPS = (("att_ein", ("att_w",)), ("gating_ein", ("gating1_w", "gating2_w")), ("qkv_ein", ("qkv1_w", "qkv2_w")))
_BIASES = {"ffw_gat_b": 2, "ffw_out_b": 1}


def check(found: Contents) -> Iterator[Finding]:
    """What the loader makes of the tensors; of a file without a table of contents they have the shapes of its model."""
    config = found.model()
    entries = entries_of(config)
    yield from _weight(found)
    for name, tensor in found.tensors.items():
        fault, is_known = found.fault(name), name in entries or _is_bias(name) or not found.listed
        # what the model does not have the loader skips, once it has read the entry and found its blob
        if fault and (is_known or tensor.blob not in found.blobs or tensor.type not in _BITS):
            yield Finding("error", f"{found.place(name)} {fault}", name)
        elif name in entries and not fault:
            yield from _tensor(found, name, entries[name])
    yield from _missing(found, config)
    if nuq := [name for name, tensor in found.tensors.items() if tensor.type == "NUQ"]:
        yield Finding("warning", f"{shown_list(nuq)}: NUQ, which only builds with GEMMA_ENABLE_NUQ=1 load", nuq[0])
    for number in range(len(config.layer_configs)):
        yield from _layer(found, config, number)
    yield from _images(found, config)
    others = [n for n in found.tensors if n not in entries and not _is_bias(n)]
    if others and found.listed:
        yield Finding("note", f"{shown_list(others)}: no tensors of the model, the loader ignores them")
    blobs = {t.blob for t in found.tensors.values()}
    if extra := [key for key in found.blobs if key not in blobs and key not in NO_TENSORS]:
        yield Finding("note", f"{shown_list(extra)}: blobs that the loader ignores")


def _missing(found: Contents, config: ModelConfig) -> Iterator[Finding]:
    """Tensors that are not there, in any layout; those of all layers that lack the same in one finding."""
    fused = {part: whole for whole, parts in _GROUPS for part in parts}
    lacking: dict[tuple[str, str], list[str]] = {}
    for entry in tensors(config):
        if entry.key in found.tensors:
            continue
        number, instead = entry.key.rpartition("_")[2], fused.get(entry.base, "")
        if instead and f"{instead}_{number}" in found.tensors:
            continue
        alone = entry.base == "qkv2_w" and f"qkv1_w_{number}" in found.tensors
        what = f" and {instead} neither" if instead and not alone else ""
        if alone or entry.base == "linear_w":
            what += "; the loader does not notice, the runtime crashes"
        lacking.setdefault((entry.base, what), []).append(entry.key)
    for (base, what), keys in lacking.items():
        more = f" in layer {keys[0].rpartition('_')[2]} and {len(keys) - 1} others" if len(keys) > 1 else ""
        yield Finding(
            "error", f"{base if more else keys[0]} is missing{more}{what}", keys[0], "missing", tuple(keys[1:])
        )


def _is_bias(name: str) -> bool:
    return name.rpartition("_")[0] in _BIASES


def _weight(found: Contents) -> Iterator[Finding]:
    """The type of the file is the one with the fewest bits; of several the first in the table of contents."""
    if not found.listed or found.config is None:
        return
    types = [t.type for t in found.tensors.values() if t.type in _BITS]
    if not types:
        yield Finding("error", "the table of contents lists no tensors", "toc")
        return
    expected = min(types, key=lambda name: _BITS[name])
    said = SBS_TYPES.get(expected)
    if said is None or found.config.weight != said.id:
        yield Finding(
            "error", f"'weight' of the configuration is {found.config.weight}; by the table of contents it must be"
            f" {said.id if said else expected} ({expected}): the loader refuses others", "config",
        )  # fmt: skip


def _tensor(found: Contents, name: str, entry: Entry) -> Iterator[Finding]:
    """One tensor of the model."""
    tensor, where = found.tensors[name], found.place(name)
    assert tensor.shape is not None
    if tensor.shape != entry.shape:
        shapes = (tensor.shape, entry.shape)
        message = f"{where} is {list(tensor.shape)}, by the configuration it must be {list(entry.shape)}"
        yield Finding("error", message, name, "shape", shapes=shapes)
    if entry.kind == BIAS and tensor.type != "F32":
        yield Finding("error", f"{where} is {tensor.type}, the loader takes F32 only", name)
    if entry.kind == POSITIONS and tensor.type not in ("F32", "BF16"):
        yield Finding("error", f"{where} is {tensor.type}, the runtime takes F32 and BF16", name)
    if entry.base == "att_ein" and tensor.type == "NUQ":
        yield Finding("error", f"{where} is NUQ, which the loader takes of att_w only: write the split layout", name)
    elif entry.base in ("gating_ein", "qkv_ein") and tensor.type == "NUQ":
        yield Finding("error", f"{where} is NUQ, which the loader does not cut in two: write the split layout", name)
    if entry.kind in (NORM, BIAS, POSITIONS) and tensor.scale != 1:
        yield Finding("warning", f"{where} has the scale {tensor.scale:g}, which the runtime ignores", name)
    is_whole = tensor.type in ("F32", "NUQ", "I8") or tensor.shape[0] < _MANY_ROWS
    n_bytes = found.sizes.get(tensor.blob, 0)
    if is_whole and n_bytes > _AT_ONCE:
        yield Finding(
            "error", f"{where} is {tensor.type} of {n_bytes} bytes: the loader reads at most {_AT_ONCE} at once, so it aborts"
            " unless the file is mapped (--map 1)", name,
        )  # fmt: skip
    if entry.kind in (MATRIX, EMBEDDING, IMAGE_MATRIX) and _used_rows(entry) % _ROWS:
        yield Finding(
            "error", f"{where} has {_used_rows(entry)} rows, the runtime multiplies by {_ROWS} at a time", name
        )


def _used_rows(entry: Entry) -> int:
    """The rows of the matrix that the runtime multiplies by."""
    return entry.shape[0] // max(entry.n_heads, 1) if entry.how == "heads" else entry.shape[0]


def _layer(found: Contents, config: ModelConfig, number: int) -> Iterator[Finding]:
    """Matrices of a layer that come in two layouts, and biases."""

    def there(names: Sequence[str]) -> list[str]:
        return [key for name in names if (key := f"{name}_{number}") in found.tensors]

    for fused, split in _GROUPS:
        whole, parts = there([fused]), there(split)
        if whole and parts:
            yield Finding(
                "error", f"{whole[0]} and {' and '.join(parts)} are both there, the loader takes one layout", whole[0]
            )
    types = {found.tensors[key].type for key in there(_GROUPS[1][1])}
    if len(types) > 1:
        yield Finding("error", f"gating1_w_{number} and gating2_w_{number} are {' and '.join(sorted(types))}, the runtime"
                      " takes one type for both", f"gating1_w_{number}")  # fmt: skip
    layer = config.layer_configs[number]
    for name, times in _BIASES.items() if layer.ff_biases else ():
        key, n = f"{name}_{number}", times * (layer.ff_hidden_dim if times > 1 else layer.model_dim)
        if key not in found.tensors:
            yield Finding("error", f"{key} is missing: layer {number} has biases", key, "missing")
        elif (found.tensors[key].type, found.tensors[key].shape) != ("F32", (1, n)):
            yield Finding("error", f"{found.place(key)} must be F32[1, {n}]", key)


def _images(found: Contents, config: ModelConfig) -> Iterator[Finding]:
    """Norms of the tower of images, whose two parts are of one type."""
    names = ["enc_norm"] if config.vit_config.layer_configs else []
    for number in range(len(config.vit_config.layer_configs)):
        names += [f"ln_{n}_{{}}_{number}" for n in (0, 1)]
    for name in names:
        keys = [name.format(part) if "{}" in name else f"{name}_{part}" for part in ("bias", "scale")]
        types = {found.tensors[key].type for key in keys if key in found.tensors}
        if len(types) > 1:
            yield Finding(
                "error", f"{' and '.join(keys)} are {' and '.join(sorted(types))}, they must be of one type", keys[0]
            )
