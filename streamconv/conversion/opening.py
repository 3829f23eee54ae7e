"""Opens whatever a user names as a source."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from .. import dequant, sources
from ..errors import UsageError
from ..file_names import ENDINGS, GGUF, HUGGING_FACE, MISTRAL, PACK, PACKED, RECIPES, container_of
from ..models.gemma_cpp.hugging_face import as_hugging_face
from ..rows import Rows
from ..sources.checkpoint import Checkpoint
from ..sources.hub.model import Reference, parse_reference
from ..sources.local_files import stored_at
from .dense_modules import WHOLE, modules_left_behind, with_dense_modules, with_own_modules
from .hub_models import HubModels
from .options import Options
from .prompt_states import open_states

#: a name with such an ending is a file, though the hub would allow it for a model
_FILE_ENDINGS = (*ENDINGS, PACKED, PACK, ".json", *RECIPES)


def hub_reference(source: str | os.PathLike[str]) -> Reference | None:
    """What ``source`` names on the hub; None when it is, or looks like, something on this machine."""
    text = os.fspath(source)
    ref = parse_reference(text)
    if ref is None or "://" in text:
        return ref
    path = Path(text)
    is_here = os.path.lexists(path) or path.parent.is_dir() or path.parts[0] in (".", "..", "~")
    return None if is_here or (not ref.file and path.suffix in _FILE_ENDINGS) else ref


class Opener:
    """Opens what the inputs of one job are named by.

    Parameters
    ----------
    hub : where models of the hub come from; None: the usual store

    Attributes
    ----------
    roots : files and folders of this machine that were opened
    """

    def __init__(self, options: Options, hub: HubModels | None = None) -> None:
        self._options = options
        self.hub = hub or HubModels(Path(), offline=options.offline, refresh=options.refresh)
        self.roots: list[Path] = []

    def open(self, source: str | os.PathLike[str], as_saved: bool = False) -> Checkpoint:
        """The checkpoint ``source`` names, its weights decoded where they are quantized already.

        Parameters
        ----------
        as_saved : decoded tensors lie the way round in which a plain checkpoint has them, which for some is another one

        Raises
        ------
        BadInput, InputMissing, NoPermission : see the opener of each kind
        NetworkError, Locked : a model of the hub cannot be had
        """
        found = dequant.decoded(as_hugging_face(self.open_stored(source, as_saved)))
        if not as_saved:
            return found
        return replace(dequant.as_saved(found), warnings=[*found.warnings, *modules_left_behind(found)])

    def open_with_modules(self, source: str | os.PathLike[str], as_saved: bool = False) -> Checkpoint:
        """The same as ``open`` with the dense modules that lie in folders beside the weights, or those that belong to the model.

        Those of the models of a merge are merged.

        Raises
        ------
        UsageError : all are asked for and there are none, or it is a merge
        """
        if Path(source).suffix in RECIPES:
            if self._options.dense_modules:
                raise UsageError(
                    f"--sentence-transformers-dense-modules has no effect on {source}, which is no model's folder",
                    "Convert the model itself.",
                )
            return self._open_merge(Path(source), lambda reference: self.open_with_modules(reference, as_saved))
        found, ref = self.open(source, as_saved), hub_reference(source)
        if found.metadata is not None:
            return found  # which no such option has an effect on

        def open_module(path: str) -> Checkpoint:
            folder = found.folder / path if ref is None else self.hub.open_module(ref, path)
            is_bare = not (folder / "config.json").exists() and stored_at(folder / WHOLE).is_file()
            return sources.open_checkpoint(
                folder / WHOLE if is_bare else folder, io=self._options.io, cache=self._frames
            )

        return (with_dense_modules if self._options.dense_modules else with_own_modules)(found, open_module)

    def open_stored(self, source: str | os.PathLike[str], as_saved: bool = False) -> Checkpoint:
        """The same with its tensors as they are stored; those of a merge are made and have nothing to decode."""
        path, options = Path(source), self._options
        layout = MISTRAL if options.mistral_format else HUGGING_FACE
        ref = hub_reference(source)
        if ref is None:
            self.roots.append(path)
        if path.suffix in RECIPES:
            return self._open_merge(path, lambda reference: self.open(reference, as_saved))
        if ref is not None:
            return self.hub.open(ref, options.io, not options.vocab_only, layout, self._frames)
        return sources.open_checkpoint(source, options.io, not options.vocab_only, self._frames, layout)

    def _open_merge(self, recipe: Path, open_model: Callable[[str], Checkpoint]) -> Checkpoint:
        from .. import merging

        options = self._options
        return merging.open_recipe(
            recipe,
            open_model,
            open_adapter=self.open_adapter,
            open_states=partial(open_states, options=options),
            lenient=options.lenient,
            seed=options.seed,
            allow_crimes=options.allow_crimes,
        )

    def open_side_files(self, source: str) -> Checkpoint:
        """The model that ``source`` names without its weights, which need not be there: its configuration and its tokenizer."""
        ref = hub_reference(source)
        if ref is not None:
            return as_hugging_face(self.hub.open(ref, self._options.io, weights=False))
        self.roots.append(Path(source))
        return as_hugging_face(sources.open_checkpoint(source, io=self._options.io, weights=False))

    @cached_property
    def _frames(self) -> sources.FrameCache:
        """Half of the memory of the job, for frames of all its compressed files."""
        return sources.FrameCache(self._options.ram // 2)

    def is_adapter(self, source: str | os.PathLike[str]) -> bool:
        """Whether ``source`` names the folder of a LoRA adapter; of one in which a model lies, too, where a base is given.

        Raises
        ------
        UsageError : a base is given and there is nothing that it would be for
        """
        ref, given = hub_reference(source), self._options.base is not None
        if ref is None:
            found = sources.is_adapter(listed(source), alone=not given)
        else:
            found = not ref.file and sources.is_adapter(self.hub.pin(ref).files, alone=not given)
        if given and not found and not self._options.lora:
            raise UsageError(f"--base has no effect: {source} is no LoRA adapter", "Leave it out.")
        return found

    def open_adapter(self, reference: str) -> Checkpoint:
        """The LoRA adapter ``reference`` names: as PEFT or MLX save it, or a GGUF file."""
        from ..merging import lora

        ref = hub_reference(reference)
        if ref is None:
            self.roots.append(Path(reference))
        if ref is None and container_of(reference) is GGUF:
            return sources.open_checkpoint(reference, cache=self._frames)
        folder = Path(reference) if ref is None else self.hub.open_adapter(ref)
        return lora.open_adapter(folder, partial(sources.open_checkpoint, cache=self._frames))


def listed(source: str | os.PathLike[str]) -> list[str]:
    """Names of the files in the folder ``source``; none where it is something else, or cannot be read."""
    try:
        return os.listdir(source)
    except (OSError, ValueError):
        return []


def open_rows(
    source: str | os.PathLike[str], quantization_config: Mapping[str, Any] | None = None
) -> Mapping[str, Rows]:
    """All tensors of ``source`` by name; each has ``shape``, ``dtype`` and ``read(start, stop)`` -> float32.

    ``quantization_config`` stands in for that section of config.json. A tensor whose parts are missing or contradict each other
    is refused, with BadInput, when it is asked for.
    """
    opener = Opener(Options(), HubModels(Path(), gives_way=True))
    stored = as_hugging_face(opener.open_stored(source))
    return dequant.decoded(stored, quantization_config, lenient=True).tensors
