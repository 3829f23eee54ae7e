"""The model under examination: its metadata and its tensors, be they those of a file or those that are about to be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from ..metadata import Metadata
from ..sources import GgufFile
from .names import Scope, Stated
from .table import Architecture, architecture

#: the loader's own limit
MAX_LAYERS = 512
#: what the loader requires of every architecture
REQUIRED = ("context_length", "embedding_length", "block_count")


class Shaped(Protocol):
    """What has the shape of a tensor."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Slowest dimension first."""


@dataclass(frozen=True)
class Subject:
    """A GGUF model, whole or split.

    Attributes
    ----------
    metadata : key/values of the first file, which are those a loader uses
    tensors : tensor infos of all files
    files : the files, none for a model that is not written yet
    """

    metadata: Metadata
    tensors: Mapping[str, Shaped]
    files: Sequence[GgufFile] = field(default=())

    @classmethod
    def of(cls, files: Sequence[GgufFile]) -> Subject:
        """The model in these files, the first one first."""
        return cls(files[0].metadata, {name: info for file in files for name, info in file.tensors.items()}, files)

    @cached_property
    def arch(self) -> str:
        """``general.architecture``, empty when there is none."""
        found = self.metadata.get("general.architecture", "")
        return found if isinstance(found, str) else ""

    @cached_property
    def known(self) -> Architecture | None:
        """What the table says of the architecture; None when it does not know it, or this is no text model."""
        return architecture(self.arch) if self.is_text_model else None

    @property
    def is_known(self) -> bool:
        """Whether the table has the architecture; of others it is not known what loads them."""
        return architecture(self.arch) is not None

    @property
    def is_text_model(self) -> bool:
        """Not a projector, an adapter, an importance matrix, or a vocabulary alone."""
        kind = self.metadata.get("general.type", "model")
        return kind == "model" and self.arch not in ("clip", "") and bool(self.tensors)

    def key(self, name: str) -> str:
        """The full key of a hyper-parameter of this architecture."""
        return f"{self.arch}.{name}"

    def get(self, name: str, default: Any = None) -> Any:
        """The plain value of a hyper-parameter."""
        return self.metadata.get(self.key(name), default)

    def number(self, name: str, layer: int = 0) -> int | None:
        """An integer hyper-parameter, that of ``layer`` where there is one per layer; None when absent or of another kind."""
        found = self.get(name)
        if isinstance(found, list):
            found = found[layer] if layer < len(found) else None
        return found if type(found) is int else None

    @cached_property
    def n_blocks(self) -> int:
        """Number of ``blk.*``, never more than the loader's limit."""
        return min(max(self.number("block_count") or 0, 0), MAX_LAYERS)

    @cached_property
    def has_first_block(self) -> bool:
        """Whether there is any tensor of ``blk.0``."""
        return any(name.startswith("blk.0.") for name in self.tensors)

    @cached_property
    def tokens(self) -> Any:
        """The token texts, or an empty list."""
        found = self.metadata.values.get("tokenizer.ggml.tokens")
        return found.value if found is not None and found.elem == "STRING" else []

    @cached_property
    def texts(self) -> list[str]:
        """The token texts, decoded once for all checks; BadInput where one is not UTF-8."""
        return list(self.tokens)

    @cached_property
    def distinct(self) -> frozenset[str]:
        """The same without repetition."""
        return frozenset(self.texts)

    @cached_property
    def n_vocab(self) -> int:
        """Number of tokens as the loader counts them."""
        return len(self.tokens) or self.number("vocab_size") or 0

    @cached_property
    def stated(self) -> Stated:
        """What expressions of the table take their names from."""
        keys, let = (self.known.keys, self.known.let) if self.known else ((), {})
        always = {key.names[0] for key in keys if len(key.names) == 1 and not key.condition}
        return Stated(self.metadata, self.tensors, self.arch, let, frozenset({*REQUIRED, *always}), self.n_vocab)

    def scope(self, layer: int = 0) -> Scope:
        """The names expressions may use, as seen from one layer."""
        return self.stated.scope(layer)

    def __contains__(self, name: str) -> bool:
        return self.key(name) in self.metadata
