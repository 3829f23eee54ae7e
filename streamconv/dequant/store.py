"""The tensors of a checkpoint while their encodings are recognised: who belongs to whom, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..errors import BadInput
from ..rows import Rows
from ..sources.checkpoint import Checkpoint
from ..sources.naming import shown
from ..sources.stored import FileRows
from .decoded_rows import DecodedRows
from .raw import Raw
from .scheme import Scheme


class Store:
    """All tensors by name, in whatever file they lie.

    A format looks for its anchors with ``ending``, asks for their companions, and ``put``s what it made of them.

    Attributes
    ----------
    config : config.json
    broken : names of tensors that could not be put together, and why; stays empty unless ``lenient``
    """

    def __init__(self, checkpoint: Checkpoint, scheme: Scheme, lenient: bool = False) -> None:
        self.path = checkpoint.path
        self.config = checkpoint.config
        self.scheme = scheme
        self.tensors: Mapping[str, Rows] = checkpoint.tensors
        self.warnings: list[str] = []
        self.broken: dict[str, BadInput] = {}
        self._lenient = lenient
        self._made: dict[str, tuple[str, DecodedRows]] = {}
        self._gone: set[str] = set()

    @property
    def made(self) -> list[DecodedRows]:
        """Everything that was put."""
        return [rows for _, rows in self._made.values()]

    def ending(self, *endings: str) -> Iterator[tuple[str, str]]:
        """``(name, name without the ending)`` of every tensor with one of ``endings`` that no format has claimed."""
        for name in self.tensors:
            if name not in self._gone and name not in self._made:
                for ending in endings:
                    if name.endswith(ending):
                        yield name, name[: -len(ending)]
                        break

    @contextmanager
    def about(self, anchor: str, name: str) -> Iterator[None]:
        """What is done here concerns the tensor ``name``, found by its part ``anchor``; in lenient mode errors are kept."""
        try:
            yield
        except BadInput as e:
            if not self._lenient:
                raise
            self.broken[name] = e
            self._gone.add(anchor)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def raw(self, name: str) -> Raw:
        """The bytes of tensor ``name``, which is there."""
        return Raw(self.tensors[name], name)

    def optional(self, name: str) -> Raw | None:
        """The bytes of ``name``, or None when there is no such tensor."""
        return self.raw(name) if name in self.tensors else None

    def companion(self, owner: str, name: str, dtypes: tuple[str, ...] = (), count: int | None = None) -> Raw:
        """The part ``name`` of the tensor ``owner``.

        Raises
        ------
        BadInput : it is absent, of another type than ``dtypes``, or has not ``count`` numbers
        """
        if name not in self.tensors:
            raise BadInput(
                f"{self.where(owner)}: tensor {shown(owner)} needs {shown(name)}, which is missing",
                "The checkpoint is incomplete; fetch it again.",
            )
        found = self.raw(name)
        if dtypes and found.dtype not in dtypes:
            raise BadInput(f"{found} has type {found.dtype}, not {' or '.join(dtypes)}")
        if count is not None and found.n_values != count:
            raise BadInput(f"{found} has shape {list(found.shape)}, {shown(owner)} needs {count} values")
        return found

    def put(self, anchor: str, rows: DecodedRows, *companions: Raw | None) -> None:
        """``rows`` take the place of tensor ``anchor``; its ``companions`` and parts are gone.

        Raises
        ------
        BadInput : there is a tensor of that name already
        """
        if rows.name != anchor and rows.name in self.tensors:
            raise BadInput(f"{self.where(anchor)}: both {shown(anchor)} and {shown(rows.name)} exist")
        self._made[anchor] = (rows.name, rows)
        self._gone.update(part.name for part in (*rows.parts, *companions) if part is not None and part.name != anchor)

    def made_of(self, name: str) -> DecodedRows | None:
        """What was put as tensor ``name``, None where nothing was."""
        return next((rows for owner, rows in self._made.values() if owner == name), None)

    def replace(self, old: DecodedRows, new: DecodedRows) -> None:
        """``new``, which is made of ``old`` and of more parts, takes its place."""
        anchor = next(anchor for anchor, (_, rows) in self._made.items() if rows is old)
        self.put(anchor, new)

    def drop(self, name: str) -> None:
        """Leave a tensor out; for what the encoding stores beside the weights, such as scales of activations."""
        self._gone.add(name)

    def result(self) -> dict[str, Rows]:
        """The tensors as they appear to the rest of the program."""
        found: dict[str, Rows] = {}
        for name, rows in self.tensors.items():
            if name in self._made:
                found[self._made[name][0]] = self._made[name][1].as_plain()
            elif name not in self._gone:
                found[name] = rows
        return found

    def where(self, name: str) -> Path:
        """The file that holds tensor ``name``, or the checkpoint."""
        rows = self.tensors.get(name)
        return rows.file.path if isinstance(rows, FileRows) else self.path
