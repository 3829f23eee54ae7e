"""The order of tensors in a quantized file, and their new names when blocks are pruned.

The order matters beyond layout: the mixes count tensors as they go by.

Source: llama.cpp ``llama-model-loader.h`` ``weight_name_comparer`` and ``llama-quant.cpp`` ``remap_layer`` (ggml 0.25.3).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ..errors import UsageError

_BLOCK = re.compile(r"blk\.(\d+)\.")


def block_number(name: str) -> int:
    """The block a tensor belongs to; -1 when its name does not begin with one."""
    found = _BLOCK.match(name)
    return int(found[1]) if found else -1


def traversal_order(names: Iterable[str]) -> list[str]:
    """``names`` as the reference walks and writes them: by block, those outside blocks first, then bytewise.

    >>> traversal_order(["blk.10.b", "blk.2.b", "blk.2.a", "output.weight"])
    ['output.weight', 'blk.2.a', 'blk.2.b', 'blk.10.b']
    """
    return sorted(names, key=lambda name: (block_number(name), name.encode()))


def pruned_names(names: Iterable[str], prune_layers: Collection[int]) -> tuple[dict[str, str], int]:
    """Renumber the blocks that remain when ``prune_layers`` are left out.

    Blocks below the first pruned one keep their number, the later ones follow without gaps.

    Returns
    -------
    input name -> output name of every tensor that remains, in the order of ``names``; and the number of blocks left

    Raises
    ------
    UsageError : a block to prune does not exist, or none would remain
    """
    blocks = {name: int(found[1]) for name in names if (found := _BLOCK.search(name))}
    present = set(blocks.values())
    if not prune_layers:
        return {name: name for name in names}, 1 + max(present, default=-1)
    if missing := sorted(set(prune_layers) - present):
        raise UsageError(f"cannot prune layer {missing[0]}: the model has layers 0 to {max(present, default=-1)}")
    kept = sorted(present - set(prune_layers))
    if not kept:
        raise UsageError("cannot prune every layer of the model")
    first = min(prune_layers)
    lower = [block for block in kept if block < first]
    start = lower[-1] + 1 if lower else 0
    numbers = {block: block for block in lower}
    numbers |= {block: start + i for i, block in enumerate(kept[len(lower) :])}
    result = {}
    for name in names:
        if name not in blocks:
            result[name] = name
        elif blocks[name] in numbers:
            result[name] = _BLOCK.sub(f"blk.{numbers[blocks[name]]}.", name, count=1)
    return result, start + len(kept) - len(lower)
