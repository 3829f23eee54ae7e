"""The configuration that gemma.cpp keeps in a weight file: a struct of 32-bit words, written and read.

Fields are only ever appended. Where words are missing the rest keeps its defaults, words behind the known ones are skipped.

Source: gemma.cpp ``gemma/configs.h`` and ``io/fields.h`` (October 2025).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple, TypeVar

from ...errors import BadInput

#: types by their number in files; those from F64 to U64 no weight has
TYPE_NAMES = {1: "F32", 2: "BF16", 3: "SFP", 4: "NUQ", 5: "F64", 6: "U32", 7: "U64", 8: "I8"}
TYPE_IDS = {name: number for number, name in TYPE_NAMES.items()}
#: how prompts are wrapped
INSTRUCTION, PRETRAINED, GEMMA3_IMAGES, PALIGEMMA = range(4)
#: kinds of layers; before September 2025 a third kind was between them, and layers of images had the number 2
TEXT_LAYER, IMAGE_LAYER, OLD_IMAGE_LAYER = 0, 1, 2
#: scales of queries: the width of a head, or the width of the model by the number of heads
HEAD_WIDTH, MODEL_WIDTH = 0, 1
#: what gemma.cpp writes for every model: tensors that had scales in a blob of their own once
SCALED = (
    "att_ein", "qkv_ein", "gr_lin_x_w", "gr_lin_y_w", "gr_lin_out_w", "gr_gate_w", "gating_ein", "linear_w",
)  # fmt: skip
#: limits of strings, in words, and of lists, in elements
_MAX_WORDS, _MAX_ELEMENTS = 64, 65536

T = TypeVar("T", bound="Struct")


class Words:
    """Words of a struct, read one after the other."""

    def __init__(self, words: tuple[int, ...]) -> None:
        self._words = words
        self._at = 0

    @property
    def left(self) -> int:
        """How many have not been read."""
        return len(self._words) - self._at

    def take(self, n: int = 1) -> tuple[int, ...]:
        """The next ``n`` (BadInput: there are not so many)."""
        if n > self.left:
            raise BadInput(f"a struct ends after {self._at} words, {n} more were expected")
        self._at += n
        return self._words[self._at - n : self._at]


class Kind(NamedTuple):
    """How a field is written and read."""

    pack: Callable[[Any], list[int]]
    parse: Callable[[Words], Any]


def _u32(value: int) -> list[int]:
    if not 0 <= value < 1 << 32:
        raise BadInput(f"{value} does not fit the 32 bits that a weight file of gemma.cpp has for it")
    return [value]


def _i32(value: int) -> list[int]:
    if not -(1 << 31) <= value < 1 << 31:
        raise BadInput(f"{value} does not fit the 32 bits that a weight file of gemma.cpp has for it")
    return [value & 0xFFFFFFFF]


def _signed(words: Words) -> int:
    (word,) = words.take()
    return word - (1 << 32) if word >= 1 << 31 else word


def _f32(value: float) -> list[int]:
    return [*struct.unpack("<I", struct.pack("<f", value))]


def _real(words: Words) -> float:
    (value,) = struct.unpack("<f", struct.pack("<I", *words.take()))
    if not math.isfinite(value):
        raise BadInput(f"a struct holds {value} where a number is expected")
    return float(value)


def pack_string(text: str) -> list[int]:
    """The words of a string (BadInput: too long, or no plain ASCII)."""
    n = -(-len(text) // 4)
    if n > _MAX_WORDS or not text.isascii() or "\0" in text:
        raise BadInput(f"{text!r} cannot be written to a weight file of gemma.cpp", "Use up to 256 ASCII characters.")
    return [n, *struct.unpack(f"<{n}I", text.encode().ljust(4 * n, b"\0"))]


def _string(words: Words) -> str:
    (n,) = words.take()
    if n > _MAX_WORDS:
        raise BadInput(f"a struct holds a string of {n} words, {_MAX_WORDS} is the most")
    raw = struct.pack(f"<{n}I", *words.take(n)).rstrip(b"\0")
    if not raw.isascii() or b"\0" in raw:
        raise BadInput(f"a struct holds {raw!r} where a name is expected")
    return raw.decode()


def _list_of(kind: Kind) -> Kind:
    def pack(values: tuple[Any, ...]) -> list[int]:
        return [*_u32(len(values)), *(word for value in values for word in kind.pack(value))]

    def parse(words: Words) -> tuple[Any, ...]:
        (n,) = words.take()
        if n > min(_MAX_ELEMENTS, words.left):
            raise BadInput(f"a struct holds a list of {n} elements, for which it is too short")
        return tuple(kind.parse(words) for _ in range(n))

    return Kind(pack, parse)


_U32 = Kind(_u32, lambda words: words.take()[0])
_I32 = Kind(_i32, _signed)
F32 = Kind(_f32, _real)
STRING = Kind(pack_string, _string)


class Struct:
    """A struct whose fields are those of a dataclass, in their order.

    Attributes
    ----------
    kinds : of those fields that are not u32
    """

    kinds: ClassVar[dict[str, Kind]] = {}

    def words(self) -> list[int]:
        """The words of the struct, how many follow before them."""
        found = [
            word
            for field in fields(self)  # type: ignore[arg-type]
            for word in self.kinds.get(field.name, _U32).pack(getattr(self, field.name))
        ]
        return [len(found), *found]

    def pack(self) -> bytes:
        """The same as bytes (BadInput: a value that a file cannot hold)."""
        words = self.words()
        return struct.pack(f"<{len(words)}I", *words)

    @classmethod
    def read(cls: type[T], words: Words) -> T:
        """The struct at the beginning of ``words``."""
        inner = Words(words.take(*words.take()))
        found = {}
        for field in fields(cls):  # type: ignore[arg-type]
            if not inner.left:
                break
            found[field.name] = cls.kinds.get(field.name, _U32).parse(inner)
        return cls(**found)


@dataclass(frozen=True)
class LayerConfig(Struct):
    """A layer; widths in values, the others flags or numbers of enums."""

    model_dim: int = 0
    unused_1: int = 0
    ff_hidden_dim: int = 0
    heads: int = 0
    kv_heads: int = 0
    qkv_dim: int = 0
    unused_2: int = 0
    ff_biases: int = 0
    unused_3: int = 0
    optimized_gating: int = 1
    post_norm: int = 0
    type: int = TEXT_LAYER
    activation: int = 0
    post_qk: int = 0
    use_qk_norm: int = 0


_LAYERS = _list_of(Kind(LayerConfig.words, LayerConfig.read))


@dataclass(frozen=True)
class VitConfig(Struct):
    """The tower of images; of a text model without layers."""

    kinds: ClassVar[dict[str, Kind]] = {"layer_configs": _LAYERS}

    model_dim: int = 0
    seq_len: int = 0
    num_scales: int = 0
    patch_width: int = 14
    image_size: int = 224
    layer_configs: tuple[LayerConfig, ...] = ()
    pool_dim: int = 1


@dataclass(frozen=True)
class ModelConfig(Struct):
    """A model.

    Attributes
    ----------
    model : number of the model, see ``models.MODELS``
    wrapping : how prompts are wrapped
    weight : number of the type of the file, see ``TYPE_NAMES``
    attention_window_sizes : of each layer; ``max_seq_len``: all that lies before
    """

    kinds: ClassVar[dict[str, Kind]] = {
        "display_name": STRING, "att_cap": F32, "final_cap": F32, "layer_configs": _LAYERS,
        "attention_window_sizes": _list_of(_U32), "vit_config": Kind(VitConfig.words, VitConfig.read),
        "eos_id": _I32, "secondary_eos_id": _I32, "scale_base_names": _list_of(STRING),
    }  # fmt: skip

    model_family_version: int = 1
    display_name: str = ""
    model: int = 0
    wrapping: int = 0
    weight: int = 0
    num_layers: int = 0
    model_dim: int = 0
    vocab_size: int = 0
    max_seq_len: int = 0
    unused_num_tensor_scales: int = 0
    att_cap: float = 0.0
    final_cap: float = 0.0
    absolute_pe: int = 0
    unused_use_local_attention: int = 0
    query_scale: int = HEAD_WIDTH
    layer_configs: tuple[LayerConfig, ...] = ()
    attention_window_sizes: tuple[int, ...] = ()
    norm_num_groups: int = 1
    vit_config: VitConfig = VitConfig()
    pool_dim: int = 1
    eos_id: int = 1
    secondary_eos_id: int = 1
    scale_base_names: tuple[str, ...] = SCALED


def unpacked_words(data: bytes, what: str) -> tuple[int, ...]:
    """The words in ``data``, which messages call ``what`` (BadInput: there is a part of one)."""
    if len(data) % 4:
        raise BadInput(f"the {what} has {len(data)} bytes, which are no whole words")
    return struct.unpack(f"<{len(data) // 4}I", data)


def parse_config(data: bytes) -> ModelConfig:
    """The configuration in the blob ``config``; layers of images have the number that they have today.

    Raises
    ------
    BadInput : it is damaged
    """
    found = ModelConfig.read(Words(unpacked_words(data, "configuration")))
    layers = tuple(
        replace(layer, type=IMAGE_LAYER) if layer.type == OLD_IMAGE_LAYER else layer
        for layer in found.vit_config.layer_configs
    )
    return replace(found, vit_config=replace(found.vit_config, layer_configs=layers))
