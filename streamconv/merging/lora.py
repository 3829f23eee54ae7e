"""LoRA adapters, applied while rows stream by.

    with_adapter(base, open_adapter(folder)) -> Checkpoint

The result is a checkpoint like any other: nothing is stored in between, and memory holds the rows in flight and a few factors.
Values are what PEFT merges into a base of the same precision: factors and sums in float32, rounded once to the base's type.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import BadInput, InputMissing, absent
from ..file_names import MLX_ADAPTER, OF_FOLDERS
from ..rows import Rows
from ..sources import MappedFile, open_checkpoint
from ..sources.checkpoint import Checkpoint, read_object
from ..sources.hf_config import TEXT_SECTIONS, is_tied, section
from ..sources.local_files import stored_at
from ..sources.side_links import refuse_foreign
from .gguf_adapter import with_gguf_adapter
from .inputs import common_dtype
from .layout import bare, is_head, lay_out
from .lora_adapter import CONFIG, Adapter, Change, read_adapter
from .lora_rows import AddedVector, DoraColumns, DoraRows, Kept, LoraRows, LowRank, ReplacedRows
from .lora_side import largest_token, merged_side
from .merged import CastRows
from .mlx_adapter import as_peft, is_of_mlx

_FILES = tuple(each.adapter for each in OF_FOLDERS)


def open_adapter(folder: Path, open_tensors: Callable[[Path], Checkpoint] = open_checkpoint) -> Checkpoint:
    """Open an adapter folder as PEFT saves it: adapter_config.json and adapter_model.safetensors or .bin; or as MLX saves it.

    Parameters
    ----------
    open_tensors : opens one file of tensors

    Returns
    -------
    Checkpoint : ``config`` is adapter_config.json, in PEFT's spelling; the file is among ``inputs``, for it decides values too

    Raises
    ------
    InputMissing : one of the two is not there
    BadInput : one is damaged
    """
    if not folder.is_dir():
        raise absent(folder, f"An adapter is a folder with {CONFIG} and {_FILES[0]}.")
    if not os.path.lexists(folder / CONFIG):
        raise InputMissing(f"{folder} has no {CONFIG}", "Give the folder that PEFT saved the adapter in.")
    refuse_foreign(folder, CONFIG)
    config = read_object(folder / CONFIG)
    of_mlx = is_of_mlx(config)
    names = (MLX_ADAPTER,) if of_mlx else _FILES
    file = next((path for name in names if os.path.lexists(path := stored_at(folder / name))), None)
    if file is None:
        what = f"is an MLX adapter without {MLX_ADAPTER}" if of_mlx else f"has neither {_FILES[0]} nor {_FILES[1]}"
        raise InputMissing(f"{folder} {what}")
    opened = open_tensors(file)
    settings = MappedFile(folder / CONFIG)
    tensors: Mapping[str, Rows] = opened.tensors
    if of_mlx:
        config, tensors = as_peft(str(folder), config, tensors)
    return Checkpoint(
        path=folder,
        tensors=tensors,
        config=config,
        inputs=(*opened.inputs, settings.describe(settings.size)),
        warnings=opened.warnings,
    )


def with_adapter(base: Checkpoint, adapter: Checkpoint, scale: float = 1.0) -> Checkpoint:
    """``base`` with ``adapter`` merged into it.

    Parameters
    ----------
    base : a checkpoint with the names of its own family; a GGUF file where the adapter is one
    adapter : see ``open_adapter``, or a GGUF file
    scale : what low-rank changes are multiplied by, besides what the adapter says

    Returns
    -------
    Checkpoint : tensors in the order of the base; ``config`` with what the adapter changed (rows of the vocabulary, a head of
        its own); ``side`` has the adapter's tokenizer when it ships one

    Raises
    ------
    BadInput : the adapter is of a kind that cannot be merged, or does not fit the base; names the tensor
    """
    if adapter.metadata is not None:
        return with_gguf_adapter(base, adapter, scale)
    if base.metadata is not None:
        raise BadInput(
            f"{base.path} is a GGUF file, whose tensors have other names than those of {adapter.path}",
            "Give the checkpoint folder that the adapter was trained on, or convert the adapter to GGUF first.",
        )
    return _Application(base, read_adapter(adapter), scale).checkpoint(adapter)


class _Application:
    """One call of ``with_adapter``."""

    def __init__(self, base: Checkpoint, adapter: Adapter, scale: float) -> None:
        self.base = base
        self.scale = scale
        self.adapter = adapter
        self.kept = Kept()
        self.tensors: dict[str, Rows] = dict(base.tensors)
        self.warnings = [*base.warnings, *adapter.warnings]
        self._loose: dict[str, list[str]] = {}
        for name in base.tensors:
            self._loose.setdefault(bare(name), []).append(name)
        self.embedding = lay_out(base.tensors, base.config).embedding
        self.head = next((name for name in base.tensors if is_head(name)), None)

    def checkpoint(self, adapter: Checkpoint) -> Checkpoint:
        """The result."""
        for target, (name, rows) in self.adapter.saved.items():
            self._save(target, name, rows)
        for change in self.adapter.changes.values():
            self._change(change)
        self._settle_head()
        side = merged_side(self.base, adapter, self.warnings)
        self._check_tokenizer(side, adapter)
        return Checkpoint(
            path=self.base.path,
            tensors=self.tensors,
            config=self._config(),
            inputs=(*self.base.inputs, *adapter.inputs),
            warnings=self.warnings,
            side=side,
        )

    def _find(self, target: str, tensor: str) -> str:
        """The base's name for the parameter ``target`` of the adapter's model; that of a head it does not store, too."""
        if target in self.tensors:
            return target
        loose = self._loose.get(bare(target), [])
        if len(loose) == 1:
            return loose[0]
        if is_head(target) and self.head is None and self.embedding is not None:
            return target
        raise BadInput(
            f"{self.adapter.where}: tensor {tensor!r} belongs to {target!r}, which {self.base.path} does not have",
            f"Give the model the adapter was trained on; {CONFIG} names "
            f"{self.adapter.config.get('base_model_name_or_path')!r}.",
        )

    def _base_rows(self, name: str) -> Rows:
        """The rows of ``name``; a head that is not stored is the embedding."""
        found = self.tensors.get(name)
        if found is not None:
            return found
        assert self.embedding is not None
        return self.base.tensors[self.embedding]

    def _save(self, target: str, tensor: str, rows: Rows) -> None:
        """Take ``rows`` in place of the base's."""
        name = self._find(target, tensor)
        if name not in self.base.tensors and self.adapter.keeps_tying:
            return
        was = self._base_rows(name)
        grown = name in (self.embedding, self.head) or is_head(name)
        if was.shape != rows.shape and not (grown and was.shape[1:] == rows.shape[1:]):
            raise BadInput(
                f"{self.adapter.where}: tensor {tensor!r} has shape {list(rows.shape)}, "
                f"{name!r} of {self.base.path} has {list(was.shape)}"
            )
        dtype = common_dtype([was.dtype])
        self.tensors[name] = rows if rows.dtype == dtype else CastRows(rows, dtype)

    def _change(self, change: Change) -> None:
        if change.tokens is not None:
            self._replace_tokens(change)
        if not change.parts and change.bias is None:
            return
        is_embedding = any(part.startswith("lora_embedding") for part in change.parts)
        letters = ("lora_embedding_A", "lora_embedding_B") if is_embedding else ("lora_A", "lora_B")
        (a_name, a), (b_name, b) = (self._part(change, letter) for letter in letters)
        if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
            raise BadInput(
                f"{self.adapter.where}: tensors {a_name!r} {list(a.shape)} and {b_name!r} {list(b.shape)} cannot be multiplied",
                "Only layers that are matrices can be merged." if len(a.shape) != 2 else "",
            )
        name = self._find(f"{change.module}.weight", a_name)
        was = self._base_rows(name)
        n_in, n_out = a.shape[1], b.shape[0]
        square = n_in == n_out and (is_embedding or self.adapter.fan_in_fan_out)
        transposed = is_embedding or square or (was.shape == (n_in, n_out) and n_in != n_out)
        if was.shape != ((n_in, n_out) if transposed else (n_out, n_in)):
            raise BadInput(
                f"{self.adapter.where}: tensors {a_name!r} {list(a.shape)} and {b_name!r} {list(b.shape)} do not fit "
                f"{name!r} of {self.base.path}, which has shape {list(was.shape)}",
                "The vocabulary of the base was resized before training; save the adapter with its embedding layers."
                if name in (self.embedding, self.head)
                else "",
            )
        scale = self.adapter.scale(change.module, a.shape[0]) * self.scale
        update = LowRank(name, a, b, scale, transposed, self.kept)
        self.tensors[name] = self._changed(change, was, update, n_out)
        if change.bias is not None:
            self._add_bias(change, update.scale)

    def _part(self, change: Change, part: str) -> tuple[str, Rows]:
        found = change.parts.get(part)
        if found is None:
            have = ", ".join(sorted(name for name, _ in change.parts.values()))
            raise BadInput(
                f"{self.adapter.where}: {change.module!r} has no {part} (there is {have})", "Fetch the adapter again."
            )
        return found

    def _changed(self, change: Change, was: Rows, update: LowRank, n_out: int) -> Rows:
        """The changed rows, with or without lengths."""
        lengths = change.parts.get("lora_magnitude_vector")
        if lengths is None:
            if self.adapter.config.get("use_dora"):
                raise BadInput(
                    f"{self.adapter.where}: {change.module!r} has no lora_magnitude_vector, and use_dora is set"
                )
            return LoraRows(was, update)
        name, rows = lengths
        if rows.shape != (n_out,):
            raise BadInput(f"{self.adapter.where}: tensor {name!r} has shape {list(rows.shape)}, not [{n_out}]")
        return DoraColumns(was, update, rows) if update.transposed else DoraRows(was, update, rows)

    def _add_bias(self, change: Change, scale: float) -> None:
        assert change.bias is not None
        tensor, rows = change.bias
        name = self._find(f"{change.module}.bias", tensor)
        was = self.tensors[name]
        if was.shape != rows.shape:
            raise BadInput(
                f"{self.adapter.where}: tensor {tensor!r} has shape {list(rows.shape)}, "
                f"{name!r} of {self.base.path} has {list(was.shape)}"
            )
        self.tensors[name] = AddedVector(was, rows, scale)

    def _replace_tokens(self, change: Change) -> None:
        assert change.tokens is not None
        tensor, rows = change.tokens
        name = self._find(f"{change.module}.weight", tensor)
        was, indices = self._base_rows(name), self.adapter.token_indices(change.module)
        if rows.shape != (len(indices), *was.shape[1:]) or max(indices, default=0) >= was.shape[0]:
            raise BadInput(
                f"{self.adapter.where}: tensor {tensor!r} has shape {list(rows.shape)} for {len(indices)} tokens up to "
                f"{max(indices, default=0)}, {name!r} of {self.base.path} has {list(was.shape)}"
            )
        self.tensors[name] = ReplacedRows(was, indices, rows)

    def _settle_head(self) -> None:
        """Embedding and head after the change: tied or not, of the same number of rows."""
        if self.embedding is None:
            return
        embedding = self.tensors[self.embedding]
        head = next((name for name in self.tensors if is_head(name)), None)
        tied = self.head is None and is_tied(self.base.config)
        replaced = any(self._is_embedding(target) for target in self.adapter.saved) and not self._embedding_changed()
        if head is None and tied and replaced and not self.adapter.keeps_tying:
            # the head was not trained: it still is what the base's embedding was
            if embedding.shape == self.base.tensors[self.embedding].shape:
                self.tensors["lm_head.weight"] = self.base.tensors[self.embedding]
            else:
                self.warnings.append(
                    f"{self.adapter.where} resized the vocabulary and saved no head: the new embedding is also the head"
                )
        elif head is None and tied and self._embedding_changed() and not self.adapter.keeps_tying:
            self.warnings.append(
                f"{self.adapter.where} changes the embedding of a model whose head is the same tensor: "
                "both are changed, as PEFT does"
            )
        if head is not None and self.tensors[head].shape[0] != embedding.shape[0]:
            raise BadInput(
                f"{self.adapter.where}: with it {head!r} has {self.tensors[head].shape[0]} rows and "
                f"{self.embedding!r} {embedding.shape[0]}",
                "Save the adapter with both (modules_to_save: [embed_tokens, lm_head]).",
            )

    def _is_embedding(self, target: str) -> bool:
        return self.embedding is not None and bare(target) == bare(self.embedding)

    def _embedding_changed(self) -> bool:
        """Whether the embedding gets a low-rank change."""
        return any(c.parts and self._is_embedding(f"{c.module}.weight") for c in self.adapter.changes.values())

    def _check_tokenizer(self, side: Mapping[str, Path | bytes], adapter: Checkpoint) -> None:
        """Every token has a row."""
        if self.embedding is None or side.get("tokenizer.json") == self.base.side_file("tokenizer.json"):
            return
        largest, n_rows = largest_token(side, adapter), self.tensors[self.embedding].shape[0]
        if largest is not None and largest >= n_rows:
            raise BadInput(
                f"{adapter.path}: its tokenizer has tokens up to id {largest}, the embedding only {n_rows} rows",
                "Save the adapter with its embedding layers, or remove its tokenizer files so that the base's are taken.",
            )

    def _config(self) -> dict[str, Any]:
        """config.json of the base with what has changed."""
        changed: dict[str, Any] = {}
        if self.embedding is not None:
            n_rows = self.tensors[self.embedding].shape[0]
            if n_rows != self.base.tensors[self.embedding].shape[0]:
                changed["vocab_size"] = n_rows
        if self.head is None and any(is_head(name) for name in self.tensors):
            changed["tie_word_embeddings"] = False
        config = dict(self.base.config)
        for key, value in changed.items():
            places = [name for name in TEXT_SECTIONS if key in section(config, name)]
            for name in places:
                config[name] = {**config[name], key: value}
            # families whose default is to tie say nothing
            if key in config or not places:
                config[key] = value
        return config
