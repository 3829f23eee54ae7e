"""The configuration of a weight file from config.json."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from ...errors import BadInput, UsageError
from ...sources.checkpoint import Checkpoint
from ...sources.hf_config import section
from ..build import settled
from ..config import Config
from ..families import FAMILIES
from ..named import named
from .judged import judged, kinds_of_layers, said, unknown_keys
from .model_config import (
    GEMMA3_IMAGES,
    HEAD_WIDTH,
    INSTRUCTION,
    MODEL_WIDTH,
    PRETRAINED,
    LayerConfig,
    ModelConfig,
    VitConfig,
)
from .models import MODELS, KnownModel, parse_specifier
from .rows import Modules, modules
from .tensors import IMAGES, TEXT
from .tower import pooled, tower_of

_GEMMA1, _GEMMA2, _GEMMA3 = "GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"
_PALIGEMMA, _GEMMA3_IMAGES = "PaliGemmaForConditionalGeneration", "Gemma3ForConditionalGeneration"
#: architecture -> what ``MODELS`` calls its family
_FAMILIES = {_GEMMA1: "gemma2", _GEMMA2: "gemma2", _GEMMA3: "gemma3", _GEMMA3_IMAGES: "gemma3", _PALIGEMMA: "paligemma"}
_RUNS = "It runs Gemma 2, Gemma 3 and PaliGemma 1 and 2; for others name the output something.gguf."
_MAX_HEAD = 1024
#: tokens of images that a checkpoint with a tower has behind those of texts
_IMAGE_TOKENS = 64


class Described(NamedTuple):
    """A model as gemma.cpp has it.

    Attributes
    ----------
    config : ``weight`` is still 0
    modules : of the checkpoint
    notes : what a user should know
    """

    config: ModelConfig
    modules: Modules
    notes: list[str]


def described(checkpoint: Checkpoint, specifier: str | None = None, max_seq_len: int | None = None) -> Described:
    """The model in ``checkpoint``.

    Parameters
    ----------
    specifier : which of gemma.cpp's models it is to be; None: the one with these sizes
    max_seq_len : tokens of a context; None: as gemma.cpp has it

    Raises
    ------
    UsageError : the options do not fit the model, or none of gemma.cpp's has these sizes
    BadInput : gemma.cpp does not run such a model, or computes otherwise than its configuration says
    """
    checkpoint = named(checkpoint)
    name = _architecture(checkpoint)
    inner = _text_architecture(checkpoint, name)
    _, config = settled(replace(checkpoint, config={**checkpoint.config, "architectures": [inner]}), FAMILIES[inner])
    config = replace(config, checkpoint=checkpoint)
    parts, notes = modules(checkpoint.tensors), list[str]()
    if TEXT not in parts.prefixes:
        raise BadInput(f"{checkpoint.path} has no embedding: it is not a whole model", "Convert the model itself.")
    tower = tower_of(checkpoint, notes, all_tokens=name == _PALIGEMMA) if IMAGES in parts.prefixes else VitConfig()
    if name == _PALIGEMMA and not tower.layer_configs:
        raise BadInput(f"{checkpoint.path} has no tower of images, without which gemma.cpp does not load PaliGemma")
    if name == _GEMMA3_IMAGES and not tower.layer_configs:
        notes.append("the checkpoint has no tower of images: the output is a text model")
    known, wrapping = _model(checkpoint, config, name, specifier, tower, notes)
    if known.wrapping == GEMMA3_IMAGES and tower.layer_configs:
        tower = pooled(checkpoint, tower, notes)
    length = max_seq_len or min(known.max_seq_len, config.integer("max_position_embeddings"))
    if length > config.integer("max_position_embeddings"):
        notes.append(
            f"--max-seq-len {length} is more than the {config.integer('max_position_embeddings')} of config.json"
        )
    notes += judged(config, known, length, sees=name == _PALIGEMMA)
    first, second = _ends(checkpoint, config, 106 if known.family == "gemma3" else 107, notes)
    layer = _layer(config, inner)
    found = ModelConfig(
        display_name=known.display_name, model=known.number, wrapping=wrapping, num_layers=config.n_layers,
        model_dim=config.hidden, vocab_size=_vocabulary(checkpoint, parts, name, known), max_seq_len=length,
        att_cap=_number(config, "attn_logit_softcapping"), final_cap=_number(config, "final_logit_softcapping"),
        query_scale=_query_scale(config), layer_configs=(layer,) * config.n_layers,
        attention_window_sizes=tuple(_windows(config, length)), vit_config=tower, eos_id=first, secondary_eos_id=second,
    )  # fmt: skip
    return Described(found, parts, [*notes, *unknown_keys(config)])


def _architecture(checkpoint: Checkpoint) -> str:
    """The architecture of the whole model (BadInput: gemma.cpp does not run it)."""
    stated = checkpoint.config.get("architectures")
    name = str(stated[0] if isinstance(stated, list) and stated else stated)
    if name not in _FAMILIES:
        raise BadInput(f"{checkpoint.path}: gemma.cpp does not run {said(name)}", _RUNS)
    return name


def _text_architecture(checkpoint: Checkpoint, name: str) -> str:
    """The architecture of the text model, by which config.json is read."""
    if name != _PALIGEMMA:
        return _GEMMA3 if name == _GEMMA3_IMAGES else name
    kind = str(section(checkpoint.config, "text_config").get("model_type", "gemma"))
    if kind not in ("gemma", "gemma2"):
        raise BadInput(
            f"{checkpoint.path}: gemma.cpp does not run PaliGemma with a text model of type {said(kind)}", _RUNS
        )
    return _GEMMA1 if kind == "gemma" else _GEMMA2


def _model(
    checkpoint: Checkpoint, config: Config, name: str, specifier: str | None, tower: VitConfig, notes: list[str]
) -> tuple[KnownModel, int]:
    """Which of gemma.cpp's models it is, and how its prompts are wrapped."""
    family, is_first = _FAMILIES[name], config.get("query_pre_attn_scalar") is None and name in (_GEMMA1, _PALIGEMMA)
    if name == _GEMMA1 and config.n_kv_heads > 1:
        raise BadInput(
            f"{checkpoint.path}: gemma.cpp does not run Gemma 1 with {config.n_kv_heads} key/value heads, such as 7B",
            _RUNS,
        )
    if specifier is not None:
        known, wrapping = parse_specifier(specifier)
        if known.family != family:
            raise UsageError(
                f"--sbs-model {specifier}: {checkpoint.path} is of {_FAMILIES[name]}'s kind",
                f"Known: {_listed(family)}.",
            )
    else:
        found, wrapping = _of_sizes(config, family, is_first, tower), None
        if found is None:
            raise UsageError(
                f"{checkpoint.path}: none of gemma.cpp's models has {config.n_layers} layers of width {config.hidden}",
                f"Say which one it is to be loaded as with --sbs-model; known: {_listed(family)}.",
            )
        known = found
        wrapping = known.wrapping
        if is_first:
            kind = "PaliGemma 1" if name == _PALIGEMMA else "Gemma 1"
            notes.append(
                f"gemma.cpp has no number for {kind} any more: it is written as {known.display_name}, of its own sizes"
            )
    if wrapping is None:
        has_template = _has_template(checkpoint)
        wrapping = INSTRUCTION if has_template else PRETRAINED
        said = ("a", "instruction tuned", "pt") if has_template else ("no", "pretrained only", "it")
        notes.append(
            f"there is {said[0]} chat template, so the model counts as {said[1]}; --sbs-model …-{said[2]} says otherwise"
        )
    return known, wrapping


def _listed(family: str) -> str:
    return ", ".join(name for name, model in MODELS.items() if model.family == family)


def _of_sizes(config: Config, family: str, is_first: bool, tower: VitConfig) -> KnownModel | None:
    """The model of a family with these sizes; that of the first generation goes by the smallest of the second."""
    width, n_layers = (2304, 26) if is_first and (config.hidden, config.n_layers) == (2048, 18) else (
        config.hidden, config.n_layers,
    )  # fmt: skip
    return next(
        (
            known
            for known in MODELS.values()
            if (known.family, known.width, known.n_layers) == (family, width, n_layers)
            and (family != "paligemma" or known.image_size == tower.image_size)
        ),
        None,
    )


def _has_template(checkpoint: Checkpoint) -> bool:
    names = ("chat_template.jinja", "chat_template.json")
    said = checkpoint.json("tokenizer_config.json") or {}
    return bool(said.get("chat_template")) or any(checkpoint.side_file(name) is not None for name in names)


def _layer(config: Config, inner: str) -> LayerConfig:
    n_heads, n_kv_heads, width = config.n_heads, config.n_kv_heads, config.head_dim
    if not n_kv_heads or n_heads % n_kv_heads:
        raise BadInput(f"{config.place}: {n_heads} heads do not share {n_kv_heads} key/value heads evenly")
    if width > _MAX_HEAD:
        raise BadInput(f"{config.place}: 'head_dim' is {width}, gemma.cpp has heads of up to {_MAX_HEAD}")
    newest = int(inner == _GEMMA3)
    return LayerConfig(
        model_dim=config.hidden, ff_hidden_dim=config.integer("intermediate_size"), heads=n_heads, kv_heads=n_kv_heads,
        qkv_dim=width, optimized_gating=newest, post_norm=int(inner != _GEMMA1), use_qk_norm=newest,
    )  # fmt: skip


def _vocabulary(checkpoint: Checkpoint, parts: Modules, name: str, known: KnownModel) -> int:
    """Tokens of texts: the rows of the embedding without those of images."""
    n = checkpoint.tensors[parts.prefixes[TEXT] + "embed_tokens.weight"].shape[0]
    if name == _PALIGEMMA:
        if n <= (checkpoint.config.get("image_token_index") or 0):  # as a weight file has it
            return n
        if n <= _IMAGE_TOKENS:
            raise BadInput(
                f"{checkpoint.path}: the embedding has {n} rows, PaliGemma's has {_IMAGE_TOKENS} for images alone"
            )
        return n - _IMAGE_TOKENS
    return known.vocab_size if n == known.vocab_size + _IMAGE_TOKENS else n


def _number(config: Config, key: str) -> float:
    return config.real(key) if config.get(key) is not None else 0.0


def _query_scale(config: Config) -> int:
    stated = config.get("query_pre_attn_scalar")
    if stated in (None, config.head_dim):
        return HEAD_WIDTH
    if stated == config.hidden / config.n_heads:
        return MODEL_WIDTH
    raise BadInput(
        f"{config.place}: 'query_pre_attn_scalar' is {said(stated)}; gemma.cpp scales queries by the width of a head,"
        f" {config.head_dim}, or by that of the model for each head, {config.hidden / config.n_heads:g}",
        "The output would be a different model.",
    )


def _windows(config: Config, length: int) -> Iterator[int]:
    window = None if config.get("sliding_window") is None else config.integer("sliding_window")
    for kind in kinds_of_layers(config):
        yield length if window is None or kind == "full_attention" else window


def _ends(checkpoint: Checkpoint, config: Config, usual: int, notes: list[str]) -> tuple[int, int]:
    """The tokens that end a text; the second is gemma.cpp's own where one is said."""
    stated = checkpoint.config.get("eos_token_id", config.get("eos_token_id"))
    found = stated if isinstance(stated, list) else [] if stated is None else [stated]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in found):
        raise BadInput(f"{config.place}: 'eos_token_id' is {said(stated)}, not the numbers of tokens")
    if len(found) > 2:
        notes.append(
            f"{config.place}: 'eos_token_id' has {len(found)} tokens, of which gemma.cpp has room for two: {found[:2]}"
        )
    first, second, *_ = [*found, usual, usual] if found else [1, usual]
    return first, second
