"""The tensors of a weight file as rows over those of a checkpoint of Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from ...errors import BadInput
from ...kit import Order, Reshaped, Stacked, Transposed, Zeros, cut, take
from ...rows import Rows
from .model_config import ModelConfig
from .tensors import BIAS, IMAGES, PREFIXES, PROJECTOR, TEXT, Entry, tensors

#: by module: tensors of which one is in every such module
_ANCHORS = {
    TEXT: ("embed_tokens.weight",),
    IMAGES: ("embeddings.patch_embedding.weight",),
    PROJECTOR: ("mm_input_projection_weight", "linear.weight"),
}
#: patterns of names -> why they are no tensors of a file
_DROPS = {
    "*lm_head.weight": "the runtime uses the embedding as output",
    "*.rotary_emb.inv_freq": "a buffer",
    "*.position_ids": "a buffer",
    "*vision_model.head.*": "the runtime takes the patches, not what is pooled of them",
    "*vision_tower.head.*": "the runtime takes the patches, not what is pooled of them",
}


class Modules(NamedTuple):
    """Where the modules of a checkpoint are.

    Attributes
    ----------
    tensors : of the checkpoint, by name
    prefixes : module -> what its names begin with; modules that it has not are not there
    """

    tensors: Mapping[str, Rows]
    prefixes: Mapping[str, str]

    def name(self, entry: Entry, at: int) -> str:
        """The name of the ``at``-th tensor that ``entry`` is made of."""
        return self.prefixes.get(entry.module, PREFIXES[entry.module][0]) + entry.names[at]


def modules(stored: Mapping[str, Rows]) -> Modules:
    """The modules of a checkpoint with these tensors."""
    found = {}
    for module, anchors in _ANCHORS.items():
        for prefix in (*PREFIXES[module], ""):
            if module not in found and any(prefix + anchor in stored for anchor in anchors):
                found[module] = prefix
    return Modules(stored, found)


def file_tensors(
    config: ModelConfig, layout: str, checkpoint: Modules
) -> tuple[dict[str, tuple[Entry, Rows]], dict[str, str]]:
    """Every tensor of a file with its rows, by key, and the tensors of the checkpoint that it has not, with the reasons.

    Raises
    ------
    BadInput : a tensor is missing, has another shape, or does not belong to such a model; names it
    """
    found, used = {}, set()
    for entry in tensors(config, layout):
        names = [checkpoint.name(entry, at) for at in range(len(entry.names))]
        for name, shape in zip(names, entry.source_shapes, strict=True):
            _refuse_misfit(name, shape, entry, checkpoint.tensors)
        used.update(names)
        found[entry.key] = (entry, _made(entry, [checkpoint.tensors[name] for name in names]))
    left_out = {}
    for name in checkpoint.tensors:
        if name not in used:
            why = next((why for pattern, why in _DROPS.items() if fnmatchcase(name, pattern)), None)
            if why is None:
                raise BadInput(
                    f"tensor {name!r} is not part of the model that config.json describes, as gemma.cpp knows it",
                    "Its weight files have no place for it.",
                )
            left_out[name] = why
    return found, left_out


def _refuse_misfit(name: str, shape: tuple[int, ...], entry: Entry, stored: Mapping[str, Rows]) -> None:
    """BadInput where a tensor is not there, or not of that shape."""
    if name not in stored:
        raise BadInput(
            f"tensor {name!r} is missing, of which gemma.cpp's {entry.key!r} is made",
            "The runtime may not notice before it crashes: complete the checkpoint.",
        )
    its = stored[name].shape
    if its != shape and not (entry.how == "cut" and its[1:] == shape[1:] and its[0] >= shape[0]):
        raise BadInput(
            f"tensor {name!r} has shape {list(its)}, as config.json has it it would be {list(shape)}",
            f"gemma.cpp's {entry.key!r} cannot be made of it.",
        )


def _made(entry: Entry, sources: list[Rows]) -> Rows:
    """The rows of ``entry`` over those of the tensors that it is made of."""
    heads = range(0, entry.n_heads * entry.width, max(entry.width, 1))
    if entry.how == "zeros":
        return Zeros(entry.shape, "F32")
    if entry.how == "transposed":
        return Transposed(sources[0])
    if entry.how == "patches":
        colour = entry.shape[1] // 3
        return take(Reshaped(sources[0], entry.shape), Order((colour, 3), (1, colour)), 1)
    if entry.how == "cut":
        return cut(sources[0], 0, entry.shape[0])
    if entry.how == "heads":
        return Stacked([cut(sources[0], at, at + entry.width, 1) for at in heads], entry.shape)
    if entry.how == "stacked":
        return Stacked(sources, entry.shape)
    if entry.how in ("qkv", "kv", "by_head"):
        if entry.kind == BIAS:
            sources = [Reshaped(rows, (entry.n_heads, entry.shape[1])) for rows in sources]
        whole, parts = (sources[:1], sources[1:]) if entry.how == "qkv" else ([], sources)
        return Stacked(
            [*whole, *(cut(rows, at, at + entry.width) for at in heads for rows in parts)], entry.shape
        )  # fmt: skip
    assert entry.how == "same"
    return sources[0]
