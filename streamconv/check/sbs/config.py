"""The configuration: numbers that the loader knows, and sizes that belong together."""

from __future__ import annotations

from collections.abc import Iterator

from ...models.gemma_cpp.deduced import deduced_name, layer_number
from ...models.gemma_cpp.model_config import (
    GEMMA3_IMAGES,
    IMAGE_LAYER,
    MODEL_WIDTH,
    OLD_IMAGE_LAYER,
    PALIGEMMA,
    TEXT_LAYER,
    TYPE_NAMES,
    LayerConfig,
    ModelConfig,
    Words,
    unpacked_words,
)
from ...models.gemma_cpp.models import MODELS, RETIRED, known_model
from ...models.gemma_cpp.reading import Contents, blob_bytes
from ...quant.sbs.container import CONFIG
from ..finding import Finding

_MAX_HEAD, _MAX_BYTES = 1024, 1 << 20
#: flags and numbers of layers, and the largest value that the loader knows of each; flags of the model itself
_MOST = {
    "post_norm": 1,
    "post_qk": 1,
    "activation": 0,
    "ff_biases": 1,
    "unused_3": 1,
    "optimized_gating": 1,
    "use_qk_norm": 1,
}
_FLAGS = ("absolute_pe", "unused_use_local_attention")
#: the size of images that the pooling of Gemma 3 is made for
_POOLED = 896


def check(found: Contents) -> Iterator[Finding]:
    """What the loader makes of the configuration, or of there being none."""
    name = deduced_name(found.sizes)
    if found.config is None:
        if not name:
            yield Finding(
                "error", "there is no configuration, and the keys are those of no model that the loader knows", CONFIG
            )
        elif name not in MODELS:
            yield Finding("error", f"by its keys this is {name}, which loaders no longer take", CONFIG)
        else:
            yield Finding("note", f"there is no configuration: by its keys the loader takes it for {name}", CONFIG)
        return
    # as it is stored: what is read from it has the numbers of today
    config = ModelConfig.read(Words(unpacked_words(blob_bytes(found, CONFIG, _MAX_BYTES), "configuration")))
    yield from _numbers(config)
    yield from _layers(config)
    yield from _images(config)
    known = known_model(config.model)
    if known is not None and name and MODELS.get(name) is not known:
        yield Finding("note", f"the loader warns that the keys look like those of {name}; it is harmless", CONFIG)
    n_layers = 1 + max(map(layer_number, found.sizes), default=0)
    expected = max(len(config.layer_configs), len(config.vit_config.layer_configs))
    if n_layers != expected:
        yield Finding("warning", f"the keys are of {n_layers} layers, the configuration describes {expected}", CONFIG)


def _numbers(config: ModelConfig) -> Iterator[Finding]:
    """Fields that have only certain values."""
    if config.model in RETIRED:
        yield Finding(
            "error", f"the model is {config.model} ({RETIRED[config.model]}), which loaders no longer take", CONFIG
        )
    elif known_model(config.model) is None:
        yield Finding("error", f"the model is {config.model}, which the loader does not know", CONFIG)
    if config.wrapping > PALIGEMMA:
        yield Finding(
            "error", f"the wrapping of prompts is {config.wrapping}, the loader knows 0 to {PALIGEMMA}", CONFIG
        )
    if config.weight not in TYPE_NAMES:
        yield Finding(
            "error", f"the type of the file is {config.weight}, the loader knows 1 to {max(TYPE_NAMES)}", CONFIG
        )
    for field in _FLAGS:
        if getattr(config, field) > 1:
            yield Finding("error", f"{field!r} is {getattr(config, field)}, the loader knows 0 and 1", CONFIG)
    if config.query_scale > MODEL_WIDTH:
        yield Finding("error", f"'query_scale' is {config.query_scale}, the loader knows 0 and 1", CONFIG)


def _layers(config: ModelConfig) -> Iterator[Finding]:
    """The layers of the text model."""
    n = len(config.layer_configs)
    if not n:
        yield Finding("error", "the configuration describes no layers", CONFIG)
    if config.num_layers != n:
        yield Finding(
            "warning", f"'num_layers' is {config.num_layers}, the loader takes the {n} that are described", CONFIG
        )
    if len(config.attention_window_sizes) != n:
        windows = len(config.attention_window_sizes)
        yield Finding("error", f"there are {windows} windows for {n} layers: the runtime reads one of each", CONFIG)
    for number, layer in enumerate(config.layer_configs):
        for fault in _faults(layer, config.model_dim):
            yield Finding("error", f"layer {number}: {fault}", CONFIG)
        if layer.type != TEXT_LAYER:
            yield Finding(
                "error", f"layer {number} is of type {layer.type}, those of a text model are of {TEXT_LAYER}", CONFIG
            )
    if any(layer.heads == layer.kv_heads > 1 for layer in config.layer_configs):
        yield Finding(
            "warning", "there are as many key/value heads as heads, which loaders say they no longer support", CONFIG
        )


def _faults(layer: LayerConfig, width: int) -> Iterator[str]:
    if layer.qkv_dim > _MAX_HEAD:
        yield f"heads have a width of {layer.qkv_dim}, the loader has room for {_MAX_HEAD}"
    if layer.model_dim != width:
        yield f"'model_dim' is {layer.model_dim}, that of the model {width}"
    if not layer.heads or not layer.kv_heads or layer.heads % layer.kv_heads:
        yield f"{layer.heads} heads do not share {layer.kv_heads} key/value heads evenly"
    for field, most in _MOST.items():
        if getattr(layer, field) > most:
            yield f"{field!r} is {getattr(layer, field)}, the loader knows 0 to {most}"


def _images(config: ModelConfig) -> Iterator[Finding]:
    """The tower of images."""
    vit = config.vit_config
    for number, layer in enumerate(vit.layer_configs):
        if layer.type == OLD_IMAGE_LAYER:
            yield Finding(
                "error", f"image layer {number} has the type {OLD_IMAGE_LAYER} of loaders before September 2025, today it is"
                f" {IMAGE_LAYER}", CONFIG,
            )  # fmt: skip
        elif layer.type != IMAGE_LAYER:
            yield Finding("error", f"image layer {number} is of type {layer.type}, it must be {IMAGE_LAYER}", CONFIG)
        if layer.heads != layer.kv_heads:
            yield Finding(
                "error", f"image layer {number} has {layer.heads} heads and {layer.kv_heads} key/value heads", CONFIG
            )
        for fault in _faults(layer, vit.model_dim):
            yield Finding("error", f"image layer {number}: {fault}", CONFIG)
    if not vit.layer_configs:
        return
    side = vit.image_size // max(vit.patch_width, 1)
    if side * side != vit.seq_len:
        yield Finding(
            "error", f"images of {side} x {side} patches are not the {vit.seq_len} that the configuration says", CONFIG
        )
    if config.wrapping == GEMMA3_IMAGES and vit.image_size != _POOLED:
        yield Finding(
            "warning", f"images have {vit.image_size} pixels: the runtime pools those of {_POOLED} only, and crashes over others",
            CONFIG,
        )  # fmt: skip
