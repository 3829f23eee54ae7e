"""Split a GGUF file and join it again: byte for byte what llama.cpp's gguf-split writes.

Its shards hold the keys of the model in the first file, and ``split.no``, ``split.tensors.count`` and ``split.count`` last, in this
order; a joined file keeps ``split.no`` and ``split.tensors.count`` and ends with a ``split.count`` of 0. Sizes count tensors with
their padding. (Shards that ``convert`` writes follow llama.cpp's converter instead, which orders the keys otherwise, does not count
padding, and puts ``streamconv.job`` last.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..conversion.options import Options
from ..conversion.prepared import Prepared
from ..conversion.unfinished import check_name
from ..errors import BadInput, UsageError
from ..file_names import GGUF, part_names
from ..metadata import Metadata
from ..sources.gguf import SPLIT_KEYS
from ..targets import gguf
from ..targets.layout import FileLayout, TensorInfo
from .copies import Stored, accept, plan_copies, require_gguf_name

#: tensors of a shard where no limit is given
MAX_TENSORS = 128
_ENDING = GGUF.endings[0]
#: split.count has 16 bits
_MOST_SHARDS = 0xFFFF


def prepare_split(source: str | os.PathLike[str], output: str | os.PathLike[str], options: Options) -> Prepared:
    """Plan to write the model ``source``, whole or split otherwise, as shards ``output``-00001-of-0000N.gguf.

    Parameters
    ----------
    options : ``split_max_bytes``, ``split_max_tensors`` (default 128) and ``no_tensor_first_split`` count here

    Raises
    ------
    UsageError, BadInput, InputMissing, NoPermission, CannotCreate
    """
    output, stored = check_name(output), Stored.open(Path(source), options)
    if os.path.lexists(output):
        raise UsageError(
            f"{output} is there already; shards are named by what stands before -00001-of-…",
            f"Give such a beginning: {output.with_suffix('').name}-split.",
        )
    infos = [_as_written(info) for info in stored.infos]
    max_tensors = options.split_max_tensors or (0 if options.split_max_bytes else MAX_TENSORS)
    shards = [*_shards(infos, stored.alignment, options.split_max_bytes, max_tensors)]
    if options.no_tensor_first_split:
        shards.insert(0, [])
    if len(shards) > _MOST_SHARDS:
        raise UsageError(
            f"{len(shards):,} shards are more than the {_MOST_SHARDS:,} that a model may have", "Allow more in each."
        )
    names = part_names(output.name.removesuffix(_ENDING), len(shards), _ENDING)
    files: list[FileLayout] = []
    for number, (name, numbers) in enumerate(zip(names, shards, strict=True)):
        own = _without_split_keys(stored.metadata) if number == 0 else Metadata()
        own.u16("split.no", number)
        own.i32("split.tensors.count", len(infos))
        own.u16("split.count", len(shards))
        alignment = stored.alignment if number == 0 else gguf.ALIGNMENT
        files.append(replace(gguf.file_layout(output.with_name(name), own, infos, numbers, alignment), accept=accept))
    return plan_copies(stored, output, files, options)


def prepare_join(source: str | os.PathLike[str], output: str | os.PathLike[str], options: Options) -> Prepared:
    """Plan to write the split model whose first file is ``source`` as one file.

    Raises
    ------
    UsageError, BadInput, InputMissing, NoPermission, CannotCreate
    """
    output, stored = check_name(output), Stored.open(Path(source), options)
    require_gguf_name(output)
    if not stored.metadata.get("split.count", 0):
        raise BadInput(f"{source} is not split: it has no key split.count, or one of 0", "It is a whole file already.")
    metadata = Metadata(dict(stored.metadata.values))
    metadata.remove("split.count")
    metadata.u16("split.count", 0)
    infos = [_as_written(info) for info in stored.infos]
    layout = gguf.file_layout(output, metadata, infos, range(len(infos)), stored.alignment)
    return plan_copies(stored, output, [replace(layout, accept=accept)], options)


def _without_split_keys(metadata: Metadata) -> Metadata:
    return Metadata({key: value for key, value in metadata.items() if key not in SPLIT_KEYS})


def _as_written(info: TensorInfo) -> TensorInfo:
    """Without slowest dimensions of 1, which ggml does not write."""
    shape = info.shape
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return replace(info, shape=shape or (1,))


def _shards(infos: Sequence[TensorInfo], alignment: int, max_bytes: int, max_tensors: int) -> Iterator[list[int]]:
    """Numbers of the tensors of each shard; one that passes the limit by itself has a shard of its own."""
    shard: list[int] = []
    filled = 0
    for number, info in enumerate(infos):
        padded = info.n_bytes + -info.n_bytes % alignment
        full = (max_tensors and len(shard) >= max_tensors) or (max_bytes and filled + padded > max_bytes)
        if shard and full:
            yield shard
            shard, filled = [], 0
        shard.append(number)
        filled += padded
    yield shard
