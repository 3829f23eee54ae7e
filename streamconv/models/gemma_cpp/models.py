"""The models that gemma.cpp has numbers for, and how they are told from a configuration of Hugging Face.

Source: gemma.cpp ``gemma/configs.h`` and ``configs.cc`` (October 2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ...errors import UsageError
from .model_config import GEMMA3_IMAGES, INSTRUCTION, PALIGEMMA, PRETRAINED


class KnownModel(NamedTuple):
    """A model.

    Attributes
    ----------
    number : in files
    display_name : in files
    family : ``gemma2``, ``gemma3`` or ``paligemma``
    width, n_layers : of its text model
    vocab_size : in files; a checkpoint with images has 64 tokens more, which no text has
    max_seq_len : in files
    image_size : of the tower of images; 0: it has none
    wrapping : how prompts are wrapped; None: that is the user's choice
    """

    number: int
    display_name: str
    family: str
    width: int
    n_layers: int
    vocab_size: int
    max_seq_len: int
    image_size: int = 0
    wrapping: int | None = None


#: by what the command line of gemma.cpp calls them
MODELS: Mapping[str, KnownModel] = {
    "gemma2-2b": KnownModel(7, "Gemma2_2B", "gemma2", 2304, 26, 256000, 8192),
    "gemma2-9b": KnownModel(3, "Gemma2_9B", "gemma2", 3584, 42, 256000, 8192),
    "gemma2-27b": KnownModel(4, "Gemma2_27B", "gemma2", 4608, 46, 256000, 8192),
    "gemma3-270m": KnownModel(18, "Gemma3_270M", "gemma3", 640, 18, 262144, 32768),
    "gemma3-1b": KnownModel(15, "Gemma3_1B", "gemma3", 1152, 26, 262144, 32768, 0, GEMMA3_IMAGES),
    "gemma3-4b": KnownModel(14, "Gemma3_4B", "gemma3", 2560, 34, 262144, 32768, 896, GEMMA3_IMAGES),
    "gemma3-12b": KnownModel(16, "Gemma3_12B", "gemma3", 3840, 48, 262144, 32768, 896, GEMMA3_IMAGES),
    "gemma3-27b": KnownModel(17, "Gemma3_27B", "gemma3", 5376, 62, 262144, 32768, 896, GEMMA3_IMAGES),
    "paligemma2-3b-224": KnownModel(10, "PaliGemma2_3B_224", "paligemma", 2304, 26, 257152, 8192, 224, PALIGEMMA),
    "paligemma2-3b-448": KnownModel(11, "PaliGemma2_3B_448", "paligemma", 2304, 26, 257152, 8192, 448, PALIGEMMA),
    "paligemma2-10b-224": KnownModel(12, "PaliGemma2_10B_224", "paligemma", 3584, 42, 257152, 8192, 224, PALIGEMMA),
    "paligemma2-10b-448": KnownModel(13, "PaliGemma2_10B_448", "paligemma", 3584, 42, 257152, 8192, 448, PALIGEMMA),
}
#: numbers of those that loaders no longer take
RETIRED = {1: "Gemma 2B", 2: "Gemma 7B", 5: "Griffin 2B", 6: "Gemma tiny", 8: "PaliGemma 224", 9: "PaliGemma 448"}
#: numbers of the models with the second base of RoPE: that of layers without a window is 1e6, all others have 1e4
TWO_BASES = (14, 15, 16, 17)
_WRAPPINGS = {"it": INSTRUCTION, "pt": PRETRAINED}


def known_model(number: int) -> KnownModel | None:
    """The model with that number; None where loaders have none."""
    return next((model for model in MODELS.values() if model.number == number), None)


def parse_specifier(text: str) -> tuple[KnownModel, int | None]:
    """A model, and how its prompts are wrapped where that is said: ``gemma2-2b-it``, ``gemma3-1b``, ``gemma3-1b-sfp``.

    Raises
    ------
    UsageError : there is no such model
    """
    name, wrapping = text.lower(), None
    for ending, number in _WRAPPINGS.items():
        if name.endswith(f"-{ending}"):
            name, wrapping = name.removesuffix(f"-{ending}"), number
    name = next(
        (name.removesuffix(end) for end in ("-sfp", "-bf16", "-f32", "-nuq", "-i8") if name.endswith(end)), name
    )
    name = {"9b": "gemma2-9b", "27b": "gemma2-27b"}.get(name, name)
    if name not in MODELS:
        raise UsageError(f"gemma.cpp has no model {text!r}", f"Known: {', '.join(MODELS)}; -it or -pt may follow.")
    found = MODELS[name]
    if found.wrapping is not None:
        if wrapping is not None:
            raise UsageError(f"{text!r}: gemma.cpp wraps all prompts of {name} alike", f"Write {name}.")
        wrapping = found.wrapping
    return found, wrapping
