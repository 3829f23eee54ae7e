"""The tower of images of a weight file from config.json: SigLIP, of which the runtime has fixed all but the sizes."""

from __future__ import annotations

from dataclasses import replace

from ...errors import BadInput
from ...sources.checkpoint import Checkpoint
from ...sources.hf_config import VISION, flattened, section
from ...sources.naming import shown
from ..config import Config
from .judged import said
from .model_config import IMAGE_LAYER, LayerConfig, VitConfig

#: pixels of a patch; patches of a side that Gemma 3 makes one token of, and the only images that the runtime does so with
_PATCH, _POOL, _SIDE = 14, 4, 896
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


def tower_of(checkpoint: Checkpoint, notes: list[str], all_tokens: bool) -> VitConfig:
    """The tower of images.

    Parameters
    ----------
    all_tokens : each patch becomes a token

    Raises
    ------
    BadInput : the runtime computes otherwise than it says
    """
    stated = section(checkpoint.config, VISION)
    if not stated:
        raise BadInput(f"{checkpoint.path}: config.json has no {VISION!r}, but there are tensors of a tower of images")
    config = Config({**_TOWER, **{k: v for k, v in stated.items() if v is not None}}, {}, {}, checkpoint)
    for key, only in {"patch_size": _PATCH, "num_channels": 3, "hidden_act": _TOWER["hidden_act"]}.items():
        if config.get(key) != only:
            raise BadInput(
                f"{checkpoint.path}: {key!r} of {VISION!r} is {said(config.get(key))}, gemma.cpp computes with {only!r}",
                "The output would be a different model.",
            )
    if (eps := config.get("layer_norm_eps")) != _TOWER["layer_norm_eps"]:
        notes.append(f"{config.place}: 'layer_norm_eps' of {VISION!r} is {said(eps)}, gemma.cpp computes with 1e-06")
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
    if all_tokens and tokens not in (None, seq_len):
        raise BadInput(f"{checkpoint.path}: 'num_image_tokens' is {said(tokens)} for {seq_len} patches of an image")
    return VitConfig(width, seq_len, 4 * n_layers, _PATCH, side, (layer,) * n_layers)


def pooled(checkpoint: Checkpoint, tower: VitConfig, notes: list[str]) -> VitConfig:
    """The tower of Gemma 3, whose patches are pooled (BadInput: to another number of tokens)."""
    tokens = checkpoint.config.get("mm_tokens_per_image")
    if tokens is not None and tokens != tower.seq_len / _POOL**2:
        raise BadInput(
            f"{checkpoint.path}: {tower.seq_len} patches become {said(tokens)} tokens, gemma.cpp makes one of"
            f" {_POOL} x {_POOL}",
            "The output would be a different model.",
        )
    if tower.image_size != _SIDE:
        notes.append(
            f"gemma.cpp pools images of 896 pixels only, these have {tower.image_size}: it runs texts, not images"
        )
    return replace(tower, pool_dim=_POOL)
