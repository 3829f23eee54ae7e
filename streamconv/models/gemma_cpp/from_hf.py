"""The configuration of a weight file from config.json; what that says otherwise than gemma.cpp computes is refused, or told.

What the runtime has fixed: GELU (tanh), no biases, a head that is the embedding, two scales of queries, RoPE of base 10 000, in
Gemma 3 from 1B on of 1 000 000 in the layers without a window, over the whole width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ...errors import BadInput, UsageError
from ...sources.checkpoint import Checkpoint
from ...sources.hf_config import VISION, flattened, is_tied, section
from ...sources.naming import shown
from ..assumed import GELU_TANH, unknown
from ..build import settled
from ..config import Config
from ..families import FAMILIES
from ..named import named
from .model_config import (
    GEMMA3_IMAGES,
    HEAD_WIDTH,
    IMAGE_LAYER,
    INSTRUCTION,
    MODEL_WIDTH,
    PRETRAINED,
    LayerConfig,
    ModelConfig,
    VitConfig,
)
from .models import MODELS, TWO_BASES, KnownModel, parse_specifier
from .rows import Modules, modules
from .tensors import IMAGES, TEXT

_GEMMA1, _GEMMA2, _GEMMA3 = "GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"
_PALIGEMMA, _GEMMA3_IMAGES = "PaliGemmaForConditionalGeneration", "Gemma3ForConditionalGeneration"
#: architecture -> what ``MODELS`` calls its family
_FAMILIES = {_GEMMA1: "gemma2", _GEMMA2: "gemma2", _GEMMA3: "gemma3", _GEMMA3_IMAGES: "gemma3", _PALIGEMMA: "paligemma"}
_RUNS = "It runs Gemma 2, Gemma 3 and PaliGemma 1 and 2; for others name the output something.gguf."
_MAX_HEAD, _PATCH, _POOL = 1024, 14, 4
#: tokens of images that a checkpoint with a tower has behind those of texts
_IMAGE_TOKENS = 64
#: what transformers takes for a tower that does not say otherwise
_TOWER = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "num_channels": 3,
    "image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
}  # fmt: skip
#: keys of a tower that change nothing of what is taken of it
_IDLE_TOWER = (
    "model_type", "architectures", "attention_dropout", "vision_use_head", "projection_dim", "num_image_tokens", "dtype",
    "torch_dtype", "transformers_version", "projector_hidden_act", "num_positions", "initializer_range",
)  # fmt: skip
#: keys that are looked at here, and those that change nothing
_LOOKED_AT = (
    "layer_types", "sliding_window", "query_pre_attn_scalar", "rms_norm_eps", "sliding_window_pattern", "vocab_size",
    "max_position_embeddings", "intermediate_size", "hidden_size", "attn_logit_softcapping", "final_logit_softcapping",
    "rope_local_base_freq", "num_key_value_heads",
)  # fmt: skip
_IDLE = ("num_image_tokens", "_sliding_window_pattern", "use_bidirectional_attention", "projection_dim")


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
    tower = _tower(checkpoint, name, notes) if IMAGES in parts.prefixes else VitConfig()
    if name == _PALIGEMMA and not tower.layer_configs:
        raise BadInput(f"{checkpoint.path} has no tower of images, without which gemma.cpp does not load PaliGemma")
    if name == _GEMMA3_IMAGES and not tower.layer_configs:
        notes.append("the checkpoint has no tower of images: the output is a text model")
    known, wrapping = _model(checkpoint, config, name, specifier, tower, notes)
    if known.wrapping == GEMMA3_IMAGES and tower.layer_configs:
        tower = _pooled(checkpoint, tower, notes)
    length = max_seq_len or min(known.max_seq_len, config.integer("max_position_embeddings"))
    if length > config.integer("max_position_embeddings"):
        notes.append(
            f"--max-seq-len {length} is more than the {config.integer('max_position_embeddings')} of config.json"
        )
    notes += _judged(config, name, known, length)
    first, second = _ends(checkpoint, config, 106 if known.family == "gemma3" else 107, notes)
    layer = _layer(config, inner)
    found = ModelConfig(
        display_name=known.display_name, model=known.number, wrapping=wrapping, num_layers=config.n_layers,
        model_dim=config.hidden, vocab_size=_vocabulary(checkpoint, parts, name, known), max_seq_len=length,
        att_cap=_number(config, "attn_logit_softcapping"), final_cap=_number(config, "final_logit_softcapping"),
        query_scale=_query_scale(config), layer_configs=(layer,) * config.n_layers,
        attention_window_sizes=tuple(_windows(config, length)), vit_config=tower, eos_id=first, secondary_eos_id=second,
    )  # fmt: skip
    return Described(found, parts, [*notes, *_unknown(config)])


def _architecture(checkpoint: Checkpoint) -> str:
    """The architecture of the whole model (BadInput: gemma.cpp does not run it)."""
    stated = checkpoint.config.get("architectures")
    name = str(stated[0] if isinstance(stated, list) and stated else stated)
    if name not in _FAMILIES:
        raise BadInput(f"{checkpoint.path}: gemma.cpp does not run {_said(name)}", _RUNS)
    return name


def _text_architecture(checkpoint: Checkpoint, name: str) -> str:
    """The architecture of the text model, by which config.json is read."""
    if name != _PALIGEMMA:
        return _GEMMA3 if name == _GEMMA3_IMAGES else name
    kind = str(section(checkpoint.config, "text_config").get("model_type", "gemma"))
    if kind not in ("gemma", "gemma2"):
        raise BadInput(
            f"{checkpoint.path}: gemma.cpp does not run PaliGemma with a text model of type {_said(kind)}", _RUNS
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


def _said(value: Any) -> str:
    """What config.json says, where that is not long."""
    text = repr(value)
    return text if len(text) <= 80 else shown(text)


def _number(config: Config, key: str) -> float:
    return config.real(key) if config.get(key) is not None else 0.0


def _query_scale(config: Config) -> int:
    stated = config.get("query_pre_attn_scalar")
    if stated in (None, config.head_dim):
        return HEAD_WIDTH
    if stated == config.hidden / config.n_heads:
        return MODEL_WIDTH
    raise BadInput(
        f"{config.place}: 'query_pre_attn_scalar' is {_said(stated)}; gemma.cpp scales queries by the width of a head,"
        f" {config.head_dim}, or by that of the model for each head, {config.hidden / config.n_heads:g}",
        "The output would be a different model.",
    )


def _kinds(config: Config) -> list[str]:
    """Which kind of attention each layer has."""
    if config.get("layer_types"):
        kinds = [str(kind) for kind in config.layer_types]
        other = next((kind for kind in kinds if kind not in ("sliding_attention", "full_attention")), None)
        if other is not None:
            raise BadInput(f"{config.place}: 'layer_types' has {_said(other)}, which gemma.cpp does not compute")
        return kinds
    pattern = config.get("sliding_window_pattern", "_sliding_window_pattern")
    if pattern is None:
        pattern = 6 if config.rope_local else 2
    every = pattern if isinstance(pattern, int) and pattern > 0 else 1
    return ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(config.n_layers)]


def _windows(config: Config, length: int) -> Iterator[int]:
    window = None if config.get("sliding_window") is None else config.integer("sliding_window")
    for kind in _kinds(config):
        yield length if window is None or kind == "full_attention" else window


def _judged(config: Config, name: str, known: KnownModel, length: int) -> Iterator[str]:
    """What config.json says otherwise than the runtime computes, where that may be told; BadInput where it may not."""
    for key, assumed in GELU_TANH.items():
        stated = config.get(key)
        if key == "hidden_act" and config.get("hidden_activation") is not None:
            continue
        if key == "use_bidirectional_attention" and name == _PALIGEMMA:
            continue  # over the prompt, as the runtime does for it
        if key != "rope_type" and stated is not None and not callable(assumed.values) and stated not in assumed.values:
            raise BadInput(
                f"{config.place}: {key!r} is {_said(stated)}, gemma.cpp computes with {assumed.values[0]!r}",
                "Its weight files cannot express this, so the output would be a different model.",
            )
    if not is_tied(config.raw) and any(n.endswith("lm_head.weight") for n in _names(config)):
        raise BadInput(
            f"{config.place}: the output head is not the embedding, as gemma.cpp has it",
            "The output would be a different model.",
        )
    eps = config.get("rms_norm_eps")
    if eps not in (None, 1e-6):
        yield f"{config.place}: 'rms_norm_eps' is {_said(eps)}, gemma.cpp computes with 1e-06"
    if config.rope_local and config.get("sliding_window") == length:
        raise UsageError(
            f"--max-seq-len {length} is as long as the window of Gemma 3: gemma.cpp would take layers with a window for others",
            "Choose another length.",
        )
    yield from _judged_rope(config, known)


def _names(config: Config) -> Iterator[str]:
    yield from config.checkpoint.tensors if config.checkpoint is not None else ()


def _judged_rope(config: Config, known: KnownModel) -> Iterator[str]:
    base = 1e6 if known.number in TWO_BASES else 1e4
    bases = {"full_attention": (config.rope, base), "sliding_attention": (config.rope_local, 1e4)}
    for kind, (rope, wanted) in bases.items():
        if not rope or kind not in (*_kinds(config), "full_attention"):
            continue
        stated, scaling, where = (
            rope.get("rope_theta"),
            rope.get("rope_type", "default"),
            f"of {kind.replace('_', ' ')}",
        )
        if stated not in (None, wanted):
            if known.display_name != "Gemma3_270M":
                raise BadInput(
                    f"{config.place}: the base of RoPE {where} is {stated:g}, gemma.cpp computes {known.display_name} with"
                    f" {wanted:g}",
                    "Its weight files cannot express this, so the output would be a different model.",
                )
            yield f"{config.place}: the base of RoPE {where} is {stated:g}, gemma.cpp computes {known.display_name} with {wanted:g}"
        if scaling == "linear" and known.family == "gemma3":
            yield (
                f"{config.place}: positions {where} are divided by {rope.get('factor')}, which gemma.cpp does not do: long texts"
                " lose most"
            )
        elif scaling != "default":
            raise BadInput(f"{config.place}: RoPE {where} is scaled ({_said(scaling)}), which gemma.cpp does not do")
        if rope.get("partial_rotary_factor", 1) not in (None, 1):
            raise BadInput(f"{config.place}: RoPE {where} turns a part of each head only, gemma.cpp turns all of it")


def _ends(checkpoint: Checkpoint, config: Config, usual: int, notes: list[str]) -> tuple[int, int]:
    """The tokens that end a text; the second is gemma.cpp's own where one is said."""
    stated = checkpoint.config.get("eos_token_id", config.get("eos_token_id"))
    found = stated if isinstance(stated, list) else [] if stated is None else [stated]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in found):
        raise BadInput(f"{config.place}: 'eos_token_id' is {_said(stated)}, not the numbers of tokens")
    if len(found) > 2:
        notes.append(
            f"{config.place}: 'eos_token_id' has {len(found)} tokens, of which gemma.cpp has room for two: {found[:2]}"
        )
    first, second, *_ = [*found, usual, usual] if found else [1, usual]
    return first, second


def _tower(checkpoint: Checkpoint, name: str, notes: list[str]) -> VitConfig:
    """The tower of images."""
    stated = section(checkpoint.config, VISION)
    if not stated:
        raise BadInput(f"{checkpoint.path}: config.json has no {VISION!r}, but there are tensors of a tower of images")
    config = Config({**_TOWER, **{k: v for k, v in stated.items() if v is not None}}, {}, {}, checkpoint)
    for key, only in {"patch_size": _PATCH, "num_channels": 3, "hidden_act": _TOWER["hidden_act"]}.items():
        if config.get(key) != only:
            raise BadInput(
                f"{checkpoint.path}: {key!r} of {VISION!r} is {_said(config.get(key))}, gemma.cpp computes with {only!r}",
                "The output would be a different model.",
            )
    if (eps := config.get("layer_norm_eps")) != _TOWER["layer_norm_eps"]:
        notes.append(f"{config.place}: 'layer_norm_eps' of {VISION!r} is {_said(eps)}, gemma.cpp computes with 1e-06")
    if strange := [key for key in stated if key not in (*_TOWER, *_IDLE_TOWER) and not key.startswith("_")]:
        notes.append(
            f"{config.place}: {VISION!r} says {', '.join(map(shown, strange))}, which this version does not know"
        )
    width, n_heads, n_layers = config.hidden, config.n_heads, config.n_layers
    side = config.integer("image_size")
    if not n_heads or width % n_heads or side % _PATCH:
        raise BadInput(
            f"{checkpoint.path}: the sizes of {VISION!r} do not divide: {width} by {n_heads}, {side} by {_PATCH}"
        )
    layer = LayerConfig(
        model_dim=width, ff_hidden_dim=config.integer("intermediate_size"), heads=n_heads, kv_heads=n_heads,
        qkv_dim=width // n_heads, ff_biases=1, type=IMAGE_LAYER,
    )  # fmt: skip
    seq_len = (side // _PATCH) ** 2
    tokens = flattened(checkpoint.config).get("num_image_tokens")
    if name == _PALIGEMMA and tokens not in (None, seq_len):
        raise BadInput(f"{checkpoint.path}: 'num_image_tokens' is {_said(tokens)} for {seq_len} patches of an image")
    return VitConfig(width, seq_len, 4 * n_layers, _PATCH, side, (layer,) * n_layers)


def _pooled(checkpoint: Checkpoint, tower: VitConfig, notes: list[str]) -> VitConfig:
    """The tower of Gemma 3, whose patches are pooled."""
    tokens = checkpoint.config.get("mm_tokens_per_image")
    if tokens is not None and tokens != tower.seq_len / _POOL**2:
        raise BadInput(
            f"{checkpoint.path}: {tower.seq_len} patches become {_said(tokens)} tokens, gemma.cpp makes one of"
            f" {_POOL} x {_POOL}",
            "The output would be a different model.",
        )
    if tower.image_size != MODELS["gemma3-4b"].image_size:
        notes.append(
            f"gemma.cpp pools images of 896 pixels only, these have {tower.image_size}: it runs texts, not images"
        )
    return replace(tower, pool_dim=_POOL)


def _unknown(config: Config) -> Iterator[str]:
    """Keys of config.json that were not looked at."""
    looked_at: Mapping[str, Any] = {**GELU_TANH, **dict.fromkeys(_LOOKED_AT)}
    if names := unknown(config, looked_at, _IDLE):
        yield f"{config.place} says {', '.join(map(shown, names))}, which this version does not know for gemma.cpp"
