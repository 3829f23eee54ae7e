"""A group of blocks on its way through a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..rows import Floats
from .layer import Layer
from .matmul import multiply, pieces_of
from .model import Model
from .numeric import layer_norm, rms_norm

#: ``(name, block, x, expert)``: the float32 input ``x[n, cols]`` of a multiplication with the weight ``name``; see the package
Observe = Callable[[str, int, Floats, "int | None"], None]
Tables = tuple[Floats, Floats]


@dataclass(frozen=True)
class Block:
    """Whole chunks that are computed together: their number, and their tokens within the group."""

    number: int
    start: int
    stop: int


class Group:
    """Blocks that go through a layer together, on one thread.

    Parameters
    ----------
    tokens : int32[n] of all its blocks
    n_ctx : tokens of a chunk
    panel : room for widened rows
    tables : cosine and sine of the layer's positions, if it has any
    """

    def __init__(
        self,
        model: Model,
        layer: Layer,
        blocks: Sequence[Block],
        tokens: NDArray[np.int32],
        n_ctx: int,
        panel: Floats,
        tables: Tables | None,
        observe: Observe | None,
    ) -> None:
        self.model, self.layer, self.blocks, self.tokens, self.n_ctx = model, layer, blocks, tokens, n_ctx
        self.panel, self.tables, self._observe = panel, tables, observe
        self.pieces = [piece for block in blocks for piece in pieces_of(block.stop, block.start)]

    def has(self, name: str) -> bool:
        """Whether the layer has the tensor ``name``."""
        return self.layer.name(name) in self.model.rows

    def vector(self, name: str) -> Floats | None:
        """A small tensor of the layer, or None."""
        return self.model.vector(self.layer.name(name))

    def observe(self, name: str, x: Floats) -> None:
        """Tell of the input ``x`` of the layer's weight ``name``, block by block."""
        if self._observe is not None:
            for block in self.blocks:
                self._observe(self.layer.name(name), block.number, x[block.start : block.stop], None)

    def product(self, name: str, x: Floats) -> Floats:
        """``x`` times the layer's weight ``name``, with the bias and the scale it has."""
        self.observe(f"{name}.weight", x)
        y = multiply(x, self.model.rows[self.layer.name(f"{name}.weight")], self.pieces, self.panel)
        return self.finished(name, y)

    def finished(self, name: str, y: Floats) -> Floats:
        """A product with the layer's weight ``name``, with the bias and the scale it has."""
        bias, scale = self.vector(f"{name}.bias"), self.vector(f"{name}.scale")
        if bias is not None:
            y += bias.reshape(-1)
        if scale is not None:
            y *= scale.reshape(-1)
        return y

    def normed(self, name: str, x: Floats) -> Floats:
        """``x`` normed by the layer's ``name``; ``x`` itself where there is no such norm."""
        weight = self.vector(f"{name}.weight")
        if weight is None:
            return x
        epsilon = self.model.computes.post_epsilon if name.startswith("post_") else 0.0
        return normed(self.model, x, weight, self.vector(f"{name}.bias"), epsilon)


def normed(model: Model, x: Floats, weight: Floats | None, bias: Floats | None = None, epsilon: float = 0.0) -> Floats:
    """``x`` normed along the last axis, as the model does it; with the model's ``epsilon`` where none is given."""
    y = (rms_norm if model.norm_kind == "rms" else layer_norm)(x, weight, epsilon or model.epsilon)
    return y if bias is None else np.add(y, bias, out=y)
