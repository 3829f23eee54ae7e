"""How the files of a model are called: endings of what holds weights, numbers of parts, files of a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True)
class Container:
    """A format of files of weights.

    Attributes
    ----------
    name : what people call it
    endings : of its files; the first is that of a model's folder
    stem : what the files of weights in a model's folder begin with, "" where a file is a model by itself
    is_packable : whether files that are compressed with Zstandard are read
    """

    name: str
    endings: tuple[str, ...]
    stem: str = ""
    is_packable: bool = False

    @property
    def whole(self) -> str:
        """The file of a folder that holds all weights."""
        return self.stem + self.endings[0]

    @property
    def index(self) -> str:
        """The file of a folder that says which file holds which tensor."""
        return f"{self.whole}.index.json"

    @property
    def pattern(self) -> str:
        """What the files of weights in a folder are like."""
        return f"{self.stem}*{self.endings[0]}"

    @property
    def adapter(self) -> str:
        """The file of a LoRA adapter, as PEFT saves it."""
        return f"adapter_model{self.endings[0]}"


SAFETENSORS = Container("safetensors", (".safetensors",), "model", is_packable=True)
GGUF = Container("gguf", (".gguf",), is_packable=True)
TORCH = Container("torch", (".bin", ".pt", ".pth", ".ckpt"), "pytorch_model")
#: gemma.cpp's
SBS = Container("sbs", (".sbs",))
CONTAINERS = (SAFETENSORS, GGUF, TORCH, SBS)
#: those of model folders, the one that is preferred first
OF_FOLDERS = (SAFETENSORS, TORCH)
#: the weights of a folder as Mistral publishes it
CONSOLIDATED = Container("safetensors", (".safetensors",), "consolidated", is_packable=True)


class Layout(NamedTuple):
    """What the files of a model's folder are called.

    Attributes
    ----------
    config : the file that says what model it is
    containers : the formats of its weights, the one that is preferred first
    """

    config: str
    containers: tuple[Container, ...]


HUGGING_FACE = Layout("config.json", OF_FOLDERS)
MISTRAL = Layout("params.json", (CONSOLIDATED,))
#: endings of all files of weights that are read, and of those that may be compressed
ENDINGS = tuple(ending for each in CONTAINERS for ending in each.endings)
PACKABLE = tuple(ending for each in CONTAINERS if each.is_packable for ending in each.endings)
#: what a compressed file ends with
PACKED = ".zst"
#: what a file of a packed checkpoint ends with, and the endings of files that can be packed so
PACK = ".scpack"
PACKED_FORMATS = tuple(ending for each in (SAFETENSORS, GGUF, TORCH) for ending in each.endings)
#: endings of files of weights that are not read
_OTHERS = (".onnx", ".h5", ".msgpack", ".npz", ".part")
_INDEXES = tuple(f"{each.endings[0]}.index.json" for each in OF_FOLDERS)
#: the file of an adapter as MLX saves it
MLX_ADAPTER = "adapters.safetensors"
#: the folder of further chat templates, and patterns of all files of such
MORE_TEMPLATES = "additional_chat_templates"
TEMPLATES = ("chat_template.*", f"{MORE_TEMPLATES}/*")
#: patterns of files that hold a vocabulary, and of all that belong to a tokenizer, its code aside
VOCABULARIES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "*.tiktoken", "tiktoken.model", "tekken.json",
    "spiece.model", "sentencepiece.bpe.model", "tokenizer.jsonl", "rwkv_vocab_*.txt",
)  # fmt: skip
OF_TOKENIZERS = (
    *VOCABULARIES, *TEMPLATES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
)  # fmt: skip
#: endings of merge recipes
RECIPES = (".yml", ".yaml")
#: what stands in the name of several outputs for what tells them apart, and the parts that a model can have
TYPE_FIELD, PART_FIELD = "{type}", "{part}"
MODEL, PROJECTOR = PARTS = ("model", "mmproj")


def container_of(name: str) -> Container | None:
    """The format of a file of weights, compressed or not, by its name; None for other files.

    >>> container_of("model.gguf.zst").name, container_of("model.bin.zst"), container_of("x.pth").name
    ('gguf', None, 'torch')
    """
    ending = Path(plain_name(name)).suffix
    return next((each for each in CONTAINERS if ending in each.endings), None)


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of ``patterns`` matches all of ``name``."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def is_weights(name: str) -> bool:
    """Whether a file of that name holds weights, read or not, or is an index of files that do."""
    return name.removesuffix(PACKED).removesuffix(PACK).endswith((*ENDINGS, *_OTHERS)) or name.endswith(_INDEXES)


def plain_name(name: str) -> str:
    """The name that a compressed or packed file of weights has when it is plain again; other names as they are.

    >>> plain_name("model.safetensors.zst"), plain_name("model.safetensors"), plain_name("notes.zst")
    ('model.safetensors', 'model.safetensors', 'notes.zst')
    >>> plain_name("pytorch_model.bin.scpack")
    'pytorch_model.bin'
    """
    for ending, formats in ((PACKED, PACKABLE), (PACK, PACKED_FORMATS)):
        if name.endswith(ending) and name.removesuffix(ending).endswith(formats):
            return name.removesuffix(ending)
    return name


def packed_paths(path: Path) -> list[Path]:
    """Where the compressed and the packed form of the file of weights ``path`` would be, as far as it has such."""
    packed = (path.with_name(path.name + ending) for ending in (PACKED, PACK))
    return [each for each in packed if plain_name(each.name) == path.name]


class PartName(NamedTuple):
    """The name of one of several files that are numbered from 1.

    Attributes
    ----------
    stem, ending : what is the same in all of them
    number, n_parts : which one, of how many
    """

    stem: str
    number: int
    n_parts: int
    ending: str


def output_name(name: str, type_: str, part: str = MODEL) -> str:
    """The name of one of the outputs that are called ``name``.

    >>> output_name("x-{part}-{type}.gguf", "Q8_0"), output_name("x.gguf", "Q8_0")
    ('x-model-Q8_0.gguf', 'x.gguf')
    """
    return name.replace(TYPE_FIELD, type_).replace(PART_FIELD, part)


def around_fields(name: str) -> list[str]:
    """The pieces of ``name`` between what stands for a type or a part; ``name`` alone where it has neither.

    >>> around_fields("x-{part}-{type}.gguf")
    ['x-', '-', '.gguf']
    """
    return re.split(f"{re.escape(TYPE_FIELD)}|{re.escape(PART_FIELD)}", name)


_PART = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})((?:\.[a-z0-9]+)+)", re.DOTALL)


def part_of(name: str) -> PartName | None:
    """Which part of a set a file is by its name, None where it is a file of its own.

    >>> part_of("q8-00002-of-00003.gguf"), part_of("q8.gguf")
    (PartName(stem='q8', number=2, n_parts=3, ending='.gguf'), None)
    """
    found = _PART.fullmatch(name)
    return PartName(found[1], int(found[2]), int(found[3]), found[4]) if found is not None else None


def part_names(stem: str, n_parts: int, ending: str) -> list[str]:
    """The names of all parts of a set.

    >>> part_names("q8", 2, ".gguf")
    ['q8-00001-of-00002.gguf', 'q8-00002-of-00002.gguf']
    """
    return [f"{stem}-{number:05d}-of-{n_parts:05d}{ending}" for number in range(1, n_parts + 1)]


def first_parts(stem: str, ending: str) -> str:
    """The pattern of the names of the first part of any set, ``stem`` being a pattern too."""
    return f"{stem}-00001-of-*{ending}"
