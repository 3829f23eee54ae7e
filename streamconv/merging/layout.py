"""Where a tensor stands in a model, read off its name: module, layer, and what is left of the name.

No table of architectures: what looks like ``layers.N.`` (``h.N.``, ``blk.N.`` …) is a tensor of layer N, everything else comes
before or after the layers. Multimodal models fall into modules, which have stacks of their own. Two models agree on a tensor
when module, layer and the rest of the name agree, so checkpoints that differ in prefixes only still match.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..sources.hf_config import AUDIO, LAYERS_OF_ANY, VISION, section, text_section, text_sections

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block|blk|decoder_layer|transformer_encoder)\.(\d+)\.")
#: what predicts further tokens: a module beside the layers, or layers behind those that config.json counts
_FURTHER = "mtp."
_BEHIND = re.compile(r"behind\.(\d+)\.")
#: leading parts of names that say nothing about the tensor
_WRAPPERS = re.compile(r"^(?:(?:model|language_model|text_model|transformer|base_model|backbone|gpt_neox)\.)+")
_MODULES = (
    ("multi_modal_projector", ("multi_modal_projector", "mm_projector", "connector", "visual.merger", "embed_vision")),
    ("vision_tower", ("vision_tower", "vision_model", "vision_encoder", "visual.")),
    ("audio_tower", ("audio_tower", "audio_encoder", "embed_audio")),
)
_AFTER = re.compile(
    r"(?:^|\.)(?:norm|norm_f|final_norm|ln_f|final_layernorm|final_layer_norm|lm_head|output|output_norm|head|score|"
    r"embed_out|classifier|cls|pooler|final_logits_bias|post_layernorm|ln_post|merger)(?:\.|$)"
)
_EMBEDDINGS = (
    ".embed_tokens.weight", ".wte.weight", ".token_embd.weight", ".word_embeddings.weight", ".embed_in.weight",
    ".tok_embeddings.weight", ".embeddings.weight", ".embedding.weight", ".shared.weight",
)  # fmt: skip
_HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
_OTHER_VOCABULARY = (
    "lm_head.bias", "embed_out.bias", "output.bias", "embed_tokens_per_layer.weight", "cls.predictions.bias",
    "cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "final_logits_bias", "shared_head.head.weight",
)  # fmt: skip
#: modules whose keys have a section of their own
_SECTIONS = {"vision_tower": VISION, "audio_tower": AUDIO}


def bare(name: str) -> str:
    """The name of a tensor or a module without the prefixes that say nothing about it.

    >>> bare("model.language_model.embed_tokens.weight"), bare("model.layers.0.mlp.up_proj")
    ('embed_tokens.weight', 'layers.0.mlp.up_proj')
    """
    return _WRAPPERS.sub("", name)


def is_head(name: str) -> bool:
    """Whether ``name`` is that of the output projection."""
    return bare(name) in _HEADS


def is_embedding(name: str) -> bool:
    """Whether ``name`` is that of a table of tokens, whatever module it is in."""
    return f".{name}".endswith(_EMBEDDINGS)


@dataclass(frozen=True)
class Place:
    """Where a tensor stands.

    Attributes
    ----------
    module : ``default``, or one of several
    layer : None outside of the layers
    key : the rest of the name; ``behind.N.…`` in the N-th layer behind those that are counted
    """

    module: str
    layer: int | None
    key: str

    @property
    def comes_after(self) -> bool:
        """Whether the model applies it behind the layers."""
        is_further = self.key.startswith(_FURTHER) or self.behind is not None
        return self.layer is None and (is_further or _AFTER.search(self.key) is not None)

    @property
    def behind(self) -> tuple[int, str] | None:
        """How many layers behind those that are counted, and the rest of the name."""
        found = _BEHIND.match(self.key)
        return (int(found[1]), self.key[found.end() :]) if found else None

    @property
    def is_head(self) -> bool:
        """Whether it is the output projection, which may be tied to the embedding."""
        return self.layer is None and self.key in _HEADS

    @property
    def is_embedding(self) -> bool:
        """Whether it is the token embedding."""
        return self.layer is None and is_embedding(self.key)

    @property
    def is_vocabulary(self) -> bool:
        """Whether its first axis is the vocabulary."""
        if self.layer is not None or self.module not in ("default", "text_decoder", "encoder", "decoder"):
            return False
        tail = f".{self.key}"
        return self.is_embedding or self.is_head or any(tail.endswith(f".{name}") for name in _OTHER_VOCABULARY)


@dataclass(frozen=True)
class Layout:
    """The tensors of one model by place.

    Attributes
    ----------
    names : place -> tensor name, in the order of the model
    prefixes : module -> what stands before the layer number in its names; modules without layers are absent
    counts : module -> number of layers
    modules : all modules
    """

    names: Mapping[Place, str]
    prefixes: Mapping[str, str]
    counts: Mapping[str, int]
    modules: tuple[str, ...]

    def outside(self, module: str) -> list[Place]:
        """The places of a module that are in no layer."""
        return [place for place in self.names if place.module == module and place.layer is None]

    def inside(self, module: str, layer: int) -> list[Place]:
        """The places in one layer of a module."""
        return self._by_layer.get((module, layer), [])

    @cached_property
    def _by_layer(self) -> dict[tuple[str, int], list[Place]]:
        found: dict[tuple[str, int], list[Place]] = {}
        for place in self.names:
            if place.layer is not None:
                found.setdefault((place.module, place.layer), []).append(place)
        return found

    @property
    def embedding(self) -> str | None:
        """Name of the token embedding."""
        return next((name for place, name in self.names.items() if place.is_embedding and place.is_vocabulary), None)


def module_section(config: Mapping[str, Any], module: str) -> Mapping[str, Any]:
    """The part of the config that describes a module."""
    return section(config, _SECTIONS[module]) if module in _SECTIONS else text_section(config)


def layer_count(config: Mapping[str, Any], module: str) -> int | None:
    """The number of layers that config.json states for ``module``; None where it does not say."""
    places = [section(config, _SECTIONS[module])] if module in _SECTIONS else []
    if module in ("default", "text_decoder"):
        places = [*text_sections(config), config]
    return next((part[key] for part in places for key in LAYERS_OF_ANY if type(part.get(key)) is int), None)


def lay_out(names: Iterable[str], config: Mapping[str, Any]) -> Layout:
    """The layout of a model with tensors ``names``.

    Layers behind those that ``config`` counts, and modules, that predict further tokens stand outside of the stack.
    """
    listed = list(names)
    stacks: dict[str, set[int]] = {}
    for name in listed:
        found = _LAYER.search(name)
        if found:
            stacks.setdefault(name[: found.start(1)], set()).add(int(found[1]))
    module_of = _module_names(listed, stacks)
    prefixes: dict[str, str] = {}
    for prefix in sorted(stacks, key=lambda p: (-len(stacks[p]), p)):
        prefixes.setdefault(module_of[prefix], prefix)
    counts = {}
    for module, prefix in prefixes.items():
        stated, seen = layer_count(config, module), max(stacks[prefix]) + 1
        counts[module] = stated if stated is not None and stated <= seen else seen
    places: dict[Place, str] = {}
    for name in listed:
        found = _LAYER.search(name)
        prefix = name[: found.start(1)] if found else ""
        module = module_of[prefix if found else name]
        if found and prefixes.get(module) == prefix and int(found[1]) < counts[module]:
            place = Place(module, int(found[1]), name[found.end() :])
        elif found and prefixes.get(module) == prefix:
            place = Place(module, None, f"behind.{int(found[1]) - counts[module]}.{name[found.end() :]}")
        else:
            place = Place(module, None, bare(name))
        places.setdefault(place if place not in places else Place(module, place.layer, name), name)
    modules = tuple(dict.fromkeys(place.module for place in places))
    return Layout(places, prefixes, counts, modules)


def flat(names: Iterable[str]) -> Layout:
    """The layout of a file whose names mean nothing: no layers, every tensor at its name."""
    return Layout({Place("default", None, name): name for name in names}, {}, {}, ("default",))


def _module_names(names: list[str], stacks: Mapping[str, set[int]]) -> dict[str, str]:
    """The module of every name outside of stacks and of every stack's prefix."""
    loose = [name for name in names if not _LAYER.search(name)]
    found = {}
    for text in (*stacks, *loose):
        found[text] = next((module for module, parts in _MODULES if any(part in text for part in parts)), "")
    text_stacks = [prefix for prefix in stacks if not found[prefix] and not bare(prefix).startswith(_FURTHER)]
    if any(found.values()):
        return {text: module or "text_decoder" for text, module in found.items()}
    if len(text_stacks) < 2:
        return dict.fromkeys(found, "default")
    # an encoder and a decoder: named by the part of the prefix that tells them apart
    labels = {prefix: bare(prefix).split(".")[0] for prefix in text_stacks}
    if len(set(labels.values())) < len(labels):
        return dict.fromkeys(found, "default")
    last = labels[text_stacks[-1]] if "decoder" not in labels.values() else "decoder"
    for text in found:
        own = labels.get(text) or next((x for x in labels.values() if f".{text}".find(f".{x}.") >= 0), last)
        found[text] = own
    return found
