"""What the projector files of towers have in common: sections of config.json, keys, cuts of tensors, types.

A projector is ``projector("its clip.projector_type", ("Hugging Face architecture", …), keys=(vision, …), …)``: names come from the
``gguf`` package's table, keys are asked of the vision section of config.json, and patches have the types that runtimes expect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import BadInput, InputMissing
from ...kit import Order, Reshaped, cut, split, take
from ...metadata import Metadata
from ...rows import Rows
from ...sources.hf_config import AUDIO, LAYERS_OF_ANY, THINKER, VISION, flattened, section
from ..assumed import Assumed
from ..config import HEADS, HIDDEN, Config, architecture, normalise
from ..families import FAMILIES
from ..family import Family
from ..keys import Key, file_type
from ..multimodal import text_architecture
from ..rules import Rule

#: instead of the name of a type, as ``quant/converter_types.py`` has it
F16_IN_F16 = "F16 in F16 files, else F32"
#: types that runtimes expect of what makes embeddings of patches, in every projector
PATCHES = {"*.patch_embd.weight*": F16_IN_F16, "*.patch_merger.weight*": F16_IN_F16}
#: what runtimes take keys of other sections than the tower's to be; see ``judged`` for their names
_OTHERWISE = "runtimes compute with {}"


def told(**stated: Any) -> dict[str, Assumed]:
    """Keys, ``__`` for each dot, that no key of the output says -> what runtimes compute, whatever config.json says."""
    return {key.replace("__", "."): Assumed((value,), _OTHERWISE.format(value)) for key, value in stated.items()}


#: class defaults of SigLIP's configuration
SIGLIP = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224,
    "patch_size": 16, "layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh",
}  # fmt: skip
#: GGUF key -> where a vision tower's section says it
_SIZES = {
    "image_size": ("image_size",),
    "patch_size": ("patch_size",),
    "embedding_length": (*HIDDEN, "width", "vt_hidden_size"),
    "feed_forward_length": ("intermediate_size", "vt_intermediate_size"),
    "block_count": (*LAYERS_OF_ANY, "layers", "vt_num_hidden_layers"),
    "attention.head_count": (*HEADS, "num_heads", "heads", "vt_num_attention_heads"),
}
#: the same of a tower for sound
_SIZES_OF_SOUND = {
    "embedding_length": HIDDEN,
    "feed_forward_length": ("intermediate_size", "encoder_ffn_dim"),
    "block_count": LAYERS_OF_ANY,
    "attention.head_count": (*HEADS, "encoder_attention_heads"),
}


def projector(
    kinds: str | tuple[str, ...],
    architectures: tuple[str, ...],
    keys: tuple[Key, ...],
    *,
    why_not: Callable[[str], str | None],
    types: Mapping[str, str] | None = None,
    **more: Any,
) -> Family:
    """The family of a projector file.

    Parameters
    ----------
    kinds : ``clip.projector_type``, which is written last; or the several values that ``keys`` write one of
    architectures : Hugging Face names, of the vision tower or of the whole model
    keys : after ``general.file_type``; mostly ``vision`` first
    why_not : see ``within``
    types : pattern of GGUF names -> type that runtimes expect; ``PATCHES`` follow
    more : fields of ``Family``, such as ``rules``, ``names``, ``classes``, ``spelled``, ``assumes``
    """
    all_kinds = (kinds,) if isinstance(kinds, str) else kinds
    last = (kind(kinds),) if isinstance(kinds, str) else ()
    fields: dict[str, Any] = {
        "section": vision_section, "assumes": {}, "spelled": lambda name, _config: name.removeprefix("model."), **more,
    }  # fmt: skip
    return Family(
        arch="clip",
        architectures=architectures,
        tokenizer=None,
        kind="mmproj",
        projectors=all_kinds,
        keys=(file_type, *keys, *last),
        why_not=why_not,
        types={**(types or {}), **PATCHES},
        **fields,
    )


def within(*starts: str) -> Callable[[str], str | None]:
    """``why_not`` of a projector whose tensors' names begin with one of ``starts``, the outer ``model.`` or ``thinker.`` aside."""

    def why_not(name: str) -> str | None:
        inner = name.removeprefix("thinker.").removeprefix("model.")
        return None if inner.startswith(starts) else "not part of the projector"

    return why_not


def vision_section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """``vision_config`` of config.json, at the root or in the thinker (BadInput where there is none)."""
    found = (section(raw, THINKER) or raw).get(VISION)
    if not isinstance(found, Mapping):
        raise BadInput("config.json has no 'vision_config', so there is no projector to write")
    return found


def with_root(*names: str) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """The same, with what the root says of ``names``."""

    def found(raw: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**{name: raw[name] for name in names if name in raw}, **vision_section(raw)}

    return found


def of_the_outer_class(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same, with the class defaults that the model around it has, whatever ``model_type`` it names itself."""
    return {**vision_section(raw), "model_type": f"{raw.get('model_type')}_vision"}


def audio(c: Config, classes: Mapping[str, Mapping[str, Any]] | None = None) -> Config | None:
    """``audio_config`` as ``classes`` fill it; None where the model has no ears."""
    found = (section(c.raw, THINKER) or c.raw).get(AUDIO)
    return normalise(found, classes or {}, c.checkpoint) if isinstance(found, Mapping) else None


def text(c: Config) -> Config:
    """The configuration of the text model beside the projector, class defaults filled in where its family is known."""
    name = architecture(c.raw)
    inner = text_architecture(c.checkpoint) if c.checkpoint is not None and name not in FAMILIES else name
    family = FAMILIES.get(inner)
    values = flattened(c.raw) if family is None else family.section(c.raw)
    return normalise(values, family.classes if family is not None else {}, c.checkpoint)


def require(c: Config, *names: str) -> None:
    """BadInput where the checkpoint has no tensor with one of these endings; the table of loaders is of text models."""
    found = c.checkpoint.tensors if c.checkpoint is not None else ()
    for name in names:
        if not any(each.endswith(name) for each in found):
            raise BadInput(f"{c.folder}: the projector has no tensor {name!r}", "Is this the whole checkpoint?")


def processor(c: Config) -> dict[str, Any]:
    """What the files of the image processor say; processor_config.json goes before preprocessor_config.json.

    Raises
    ------
    InputMissing : there is none
    """
    if not (merged := _processor(c)):
        raise InputMissing(
            f"{c.folder} has neither preprocessor_config.json nor processor_config.json",
            "Copy it from the model's page; the projector needs its image_mean and image_std.",
        )
    return merged


def _processor(c: Config) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name, inner in (("preprocessor_config.json", "media_proc_cfg"), ("processor_config.json", "image_processor")):
        said = c.side(name)
        if isinstance(said, dict):
            nested = said.get(inner)
            merged |= {**said, **(nested if isinstance(nested, dict) else {})}
    return merged


def sizes(m: Metadata, c: Config, **given: int) -> None:
    """Sizes of the vision tower; ``given``, by their GGUF names, are those that config.json does not say so."""
    _put("clip.vision", _SIZES, m, c, given)


def side_of(c: Config, name: str) -> int:
    """Pixels of the side of an image or a patch, of which some configurations say both; BadInput where it is 0."""
    said = c.get(name)
    pixels = int(said[0]) if isinstance(said, Sequence) and said and isinstance(said[0], int) else c.integer(name)
    if pixels <= 0:
        raise BadInput(f"{c.place}: the vision tower's {name} is {pixels}")
    return pixels


def image_statistics(m: Metadata, c: Config, usual: Mapping[str, Sequence[float]] | None = None) -> None:
    """Mean and deviation of pixels, from the image processor's file; ``usual`` where it does not say them, or there is none.

    Raises
    ------
    InputMissing : there is none
    BadInput : it does not say them
    """
    said = processor(c) if usual is None else {**usual, **_processor(c)}
    for key in ("image_mean", "image_std"):
        values = said.get(key)
        if not isinstance(values, list) or len(values) != 3:
            raise BadInput(f"{c.folder}: the image processor has no {key!r} of three numbers")
        m.array(f"clip.vision.{key}", "FLOAT32", values)


def vision(m: Metadata, _arch: str, c: Config) -> None:
    """That there is a vision tower, its sizes, the width of the text model, and the statistics of images."""
    tower(m, c)


def tower(m: Metadata, c: Config, usual: Mapping[str, Sequence[float]] | None = None, /, **given: int) -> None:
    """The same; ``given`` as ``sizes`` takes them, ``usual`` as ``image_statistics`` does."""
    m.boolean("clip.has_vision_encoder", True)
    m.u32("clip.vision.projection_dim", text(c).hidden)
    sizes(m, c, **given)
    image_statistics(m, c, usual)


def ears(m: Metadata, c: Config, sound: Config, **given: int) -> None:
    """That there is a tower for ``sound``, the width of the text model of ``c``, and sizes; ``given`` as ``sizes`` takes them."""
    m.boolean("clip.has_audio_encoder", True)
    m.u32("clip.audio.projection_dim", text(c).hidden)
    _put("clip.audio", _SIZES_OF_SOUND, m, sound, given)


def _put(module: str, names: Mapping[str, tuple[str, ...]], m: Metadata, c: Config, given: Mapping[str, int]) -> None:
    for key, spellings in names.items():
        said = given.get(key.rpartition(".")[2])
        read = side_of if key in ("image_size", "patch_size") else Config.integer
        m.u32(f"{module}.{key}", read(c, *spellings) if said is None else said)


def kind(name: str, module: str = "") -> Key:
    """The key that says which projector it is; ``module``: ``vision.`` or ``audio.`` where a file has both."""

    def key(m: Metadata, _arch: str, _c: Config) -> None:
        m.string(f"clip.{module}projector_type", name)

    return key


def epsilon(*names: str, default: float) -> Key:
    """The epsilon of the tower's norms, by the first of ``names`` that config.json says."""

    def key(m: Metadata, _arch: str, c: Config) -> None:
        said = c.get(*names) is not None
        m.f32("clip.vision.attention.layer_norm_epsilon", c.real(*names) if said else default)

    return key


def gelu(m: Metadata, _arch: str, _c: Config) -> None:
    """The tower computes with GELU."""
    m.boolean("clip.use_gelu", True)


def gelu_or_silu(m: Metadata, _arch: str, c: Config) -> None:
    """GELU or SiLU, as ``hidden_act`` says (BadInput: another)."""
    said = str(c.get("hidden_act")).lower()
    if said not in ("gelu", "silu"):
        raise BadInput(f"{c.place}: the vision tower's 'hidden_act' is {said!r}, runtimes compute 'gelu' or 'silu'")
    m.boolean(f"clip.use_{said}", True)


def merge_size(m: Metadata, _arch: str, c: Config) -> None:
    """How many patches a side are merged into one, where the tower says so."""
    if c.get("spatial_merge_size") is not None:
        m.u32("clip.vision.spatial_merge_size", c.integer("spatial_merge_size"))


def per_side(c: Config, name: str, value: Any) -> int:
    """The whole number of which ``value``, key ``name`` of config.json, is the reciprocal (BadInput: of none)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise BadInput(f"{c.place}: {name!r} is {value!r}, not a number above 0 and up to 1")
    return int(1.0 / value)


def thirds(
    source: str, target: str = "v.blk.{bid}.attn", suffixes: Sequence[str] = (".weight", ".bias")
) -> tuple[Rule, ...]:
    """Rules that split a fused matrix, and its biases, into those of queries, keys and values."""

    def make(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
        return split(rows[0], [rows[0].shape[0] // 3] * 3)

    return tuple(
        Rule(tuple(f"{target}_{part}{suffix}" for part in "qkv"), (f"{source}{suffix}",), make) for suffix in suffixes
    )


def time_slices(source: str) -> Rule:
    """A convolution over two frames as two over one, ``v.patch_embd.weight`` and ``v.patch_embd.weight.1``."""

    def make(rows: Sequence[Rows], config: Config) -> Sequence[Rows]:
        out, channels, frames, *side = rows[0].shape
        if frames != 2:
            raise BadInput(
                f"{config.folder}: tensor {source!r} has patches of {frames} frames, runtimes compute with 2",
                "No GGUF key expresses this, so the output would be a different model.",
            )
        return [Reshaped(cut(rows[0], n, n + 1, 2), (out, channels, *side)) for n in range(2)]

    return Rule(("v.patch_embd.weight", "v.patch_embd.weight.1"), (source,), make)


def colours_first(rows: Rows, side: int) -> Rows:
    """Last axis, which goes through (row, column, colour) of patches of ``side``, in the order (colour, row, column)."""
    return take(rows, Order((3, side * side), (1, 3)), -1)


def convolution(rows: Rows, _config: Config) -> Rows:
    """A linear layer over (row, column, colour) of patches as the convolution [outputs, colours, rows, columns] that it is.

    Its biases stay as they are.
    """
    if len(rows.shape) != 2:
        return rows
    side = round((rows.shape[-1] // 3) ** 0.5)
    return Reshaped(colours_first(rows, side), (rows.shape[0], 3, side, side))


def at_least_a_vector(rows: Rows, _config: Config) -> Rows:
    """A single number as a vector of one."""
    return rows if rows.shape else Reshaped(rows, (1,))
