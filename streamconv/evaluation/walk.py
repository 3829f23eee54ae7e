"""All tokens of a text through all layers of one model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from .. import forward
from ..engine.run import Reporter, StopRequest
from ..errors import UsageError
from ..forward.chunks import Tokens
from ..rows import Floats, Rows, matrix_shape
from ..sources.zstd import cache_bytes
from ..units import MIB
from .groups import block_of
from .states import States

#: decides which error ends a run that is asked to stop
StopError = Callable[[], Exception]


def stored_bytes(rows: Rows) -> int:
    """Bytes of files that a tensor is read from."""
    return sum(span.length for span in rows.spans(0, matrix_shape(rows.shape)[0]))


def held_bytes(model: forward.Model) -> int:
    """Memory that compressed files of ``model`` take beside its arrays."""
    return cache_bytes(file for rows in model.rows.values() for file in rows.files)


def require_ram(model: forward.Model, n_ctx: int, ram: int) -> None:
    """UsageError where ``ram`` bytes are too few for one thread to run ``model`` with."""
    least = forward.least_ram(model, n_ctx) + held_bytes(model)
    if ram < least:
        raise UsageError(
            f"--ram {ram // MIB} MiB is too little: chunks of {n_ctx} tokens need {least / MIB:.1f} MiB",
            f"Use --ram {-(-least // MIB)}MiB or more.",
        )


@dataclass
class Walk:
    """One model on its way through its layers.

    Attributes
    ----------
    tokens : int32[n_chunks, n_ctx]
    ram, threads : for arrays, beside the states; what compressed files take is taken off
    stop, stopped : looked at within a layer; the error that is raised then
    made : layers that this run has made, of all its models
    """

    model: forward.Model
    tokens: Tokens
    states: States
    ram: int
    threads: int
    reporter: Reporter
    stop: StopRequest
    stopped: StopError
    made: int = 0

    def __post_init__(self) -> None:
        self.ram -= held_bytes(self.model)
        self._bytes = {name: stored_bytes(rows) for name, rows in self.model.rows.items() if block_of(name) is not None}

    @property
    def total_bytes(self) -> int:
        """Of all layers."""
        return sum(map(self.bytes_of, range(self.model.n_layers)))

    @property
    def done_bytes(self) -> int:
        """Of those that the states have gone through."""
        return sum(map(self.bytes_of, range(self.states.n_layers)))

    def bytes_of(self, number: int) -> int:
        """Of one layer."""
        return sum(n for name, n in self._bytes.items() if block_of(name) == number)

    def begin(self) -> None:
        """Embed the tokens, unless states were taken up."""
        if self.states.n_layers < 0:
            forward.embed(self.model, self.tokens, self.states.following)
            self.states.filled()

    def layer(self, observe: forward.Observe | None = None, kept_bytes: int = 0) -> int:
        """The next layer; its number. ``kept_bytes`` of the memory are taken by what ``observe`` keeps."""
        number = self.states.n_layers
        watched = _Watched(self, number, observe)
        forward.run_layer(
            self.model, number, self.tokens, self.states.current, self.states.following, ram=self.ram - kept_bytes,
            threads=self.threads, observe=watched,
        )  # fmt: skip
        self.states.filled()
        self.reporter.advance(self.bytes_of(number) - watched.told, f"blk.{number}")
        for name, rows in self.model.rows.items():
            if block_of(name) == number:
                rows.release(0, matrix_shape(rows.shape)[0])
        self.made += 1
        return number

    def look(self) -> None:
        """Raise what a run is ended with that is asked to stop; a deadline counts once it has made a layer."""
        if self.stop.signum or (self.made and self.stop.is_due()):
            raise self.stopped()


class _Watched:
    """Tells progress, and stops within a layer."""

    def __init__(self, walk: Walk, number: int, observe: forward.Observe | None) -> None:
        self._walk, self._observe, self.told, self._lock = walk, observe, 0, threading.Lock()
        n_used = walk.model.layers[number].n_experts_used
        self._n_tokens, self._n_visits = walk.tokens.size, walk.tokens.size * max(1, n_used)

    def __call__(self, name: str, block: int, x: Floats, expert: int | None) -> None:
        walk = self._walk
        if walk.stop.signum:
            raise walk.stopped()
        if self._observe is not None:
            self._observe(name, block, x, expert)
        share = len(x) / (self._n_tokens if expert is None else self._n_visits)
        n_bytes = int(walk._bytes.get(name, 0) * share)
        with self._lock:
            self.told += n_bytes
        walk.reporter.advance(n_bytes, name)
