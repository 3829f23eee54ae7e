"""Where config.json says what: sections of the modules of a model, spellings of keys, and what holds where it says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: sections of the text model in a model of several modules, by the program that saved it
TALKER = "talker_config"
TEXT_SECTIONS = ("text_config", "llm_config", "lm_config", "language_config", "lfm", TALKER)
#: sections of other modules
VISION, AUDIO = "vision_config", "audio_config"
#: where models that also speak have the sections of what they understand
THINKER = "thinker_config"
#: spellings of the number of layers of a text model, and of any module
LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "num_transformer_layers")
LAYERS_OF_ANY = (*LAYERS, "depth", "encoder_layers")
#: starts of the ``model_type`` of families whose classes tie the head to the embedding
_TYING = ("gemma", "cohere", "gpt2")


def section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The section ``name``, {} where there is none."""
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def text_sections(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The sections of the text model that are there, of a model that also speaks in its thinker; none where the root is all."""
    outer = section(config, THINKER) or config
    return [found for name in TEXT_SECTIONS if isinstance(found := outer.get(name), Mapping)]


def text_section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The section of the text model itself, the root where there is none."""
    return next(iter(text_sections(config)), config)


def flattened(config: Mapping[str, Any]) -> dict[str, Any]:
    """The root with the sections of the text model merged over it.

    >>> flattened({"vocab_size": 1, "dtype": "float16", "text_config": {"vocab_size": 2}})["vocab_size"]
    2
    """
    return {key: value for part in (config, *text_sections(config)) for key, value in part.items()}


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the head is the embedding, as config.json says or as the model's class has it."""
    return bool({**config, **text_section(config)}.get("tie_word_embeddings", ties_by_default(config)))


def ties_by_default(config: Mapping[str, Any]) -> bool:
    """Whether the head is the embedding where ``tie_word_embeddings`` is not said."""
    kind = text_section(config).get("model_type", config.get("model_type"))
    return str(kind).startswith(_TYING)
