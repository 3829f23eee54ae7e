"""What tells the arithmetic of one GGUF architecture from that of another, beyond what keys and tensors say.

Source: ``src/models`` of llama.cpp (the tree of llama-cpp-python 0.3.36), and the cards of the families.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Computes:
    """How the blocks of an architecture compute.

    Attributes
    ----------
    rope : what is rotated together: ``pairs`` of neighbours (0, 1), ``halves`` of a head (0, n/2), or ``none``
    rope_step : every so many layers one has no rotation; 0: all have
    rope_in_windows_only : layers that see everything have no rotation
    activation : ``silu``, ``gelu`` (tanh), ``gelu_erf``, ``relu2``, ``clamped`` (gpt-oss)
    norm : ``rms`` or ``layer``; empty: as the key of its epsilon says
    scaled_by_width : embeddings are multiplied by the root of the width
    windows : ``(period, last)``: the last (or, if not ``last``, the first) layer of each period sees everything, of a period of 0
        none does; None: no layer has a window, whatever ``attention.sliding_window`` says
    window : the default of ``attention.sliding_window``
    window_base : the default of ``rope.freq_base_swa``; 0: that of the other layers
    window_scaled : whether layers with a window have the scaling of positions, too
    chunked : a window is a part of the text that begins at a multiple of its length
    scale : of scores; 0: by the size of heads
    temperature : defaults of ``attention.temperature_scale`` and ``attention.temperature_length``, and what is added to positions
    cool_where_unturned : scores have the temperature only in layers without rotation
    wide_layers : a model of so many layers has scores scaled by width per head instead
    score_cap, logit_cap : defaults of their keys
    slope : the default of ``attention.max_alibi_bias``: scores fall with the distance of positions
    normed_values : values are normed, without a weight
    bare_norms : rotated queries and keys are normed, without a weight, except in models of so many experts; 0: never
    normed_after_rope : queries and keys are normed after they were rotated
    embedding_scale, logit_scale : defaults of their keys
    soft_gate : what attention gives is gated by the softplus function, not the logistic one
    rotated : which part of its numbers a layer without a window rotates
    stretched_base : ``rope.scaling.alpha`` raises the base of angles
    divided_logits : ``logit_scale`` divides
    gating : the default of ``expert_gating_func``: 1 softmax over all, 2 sigmoid, 3 softmax over those chosen
    scaled_inputs : experts are given inputs times weights, instead of giving outputs times weights
    beside_experts : what experts and a network beside them are multiplied by, together
    normed_weights : the default of ``expert_weights_norm``
    parallel_by_key : ``use_parallel_residual`` decides whether both halves of a layer have its input; else its norms do
    partial : layers may lack one of their halves
    names : of tensors that are what other architectures call otherwise
    unweighted_norms : norms are there, without a weight
    normed_embeddings : embeddings are normed, without a weight
    post_epsilon : of the norms behind each half of a layer; 0: that of the others
    final_norm : the norm before the head
    tiled_heads : the delta rule pairs value head i with key head i mod n; else neighbours share one
    """

    rope: str = "halves"
    rope_step: int = 0
    rope_in_windows_only: bool = False
    activation: str = "silu"
    norm: str = ""
    scaled_by_width: bool = False
    windows: tuple[int, bool] | None = None
    window: int = 0
    window_base: float = 0.0
    window_scaled: bool = True
    chunked: bool = False
    scale: float = 0.0
    temperature: tuple[float, int, float] = (0.0, 0, 0.0)
    cool_where_unturned: bool = False
    wide_layers: int = 0
    score_cap: float = 0.0
    logit_cap: float = 0.0
    slope: float = 0.0
    normed_values: bool = False
    bare_norms: int = 0
    normed_after_rope: bool = False
    rotated: float = 1.0
    stretched_base: bool = False
    soft_gate: bool = False
    embedding_scale: float = 0.0
    logit_scale: float = 0.0
    divided_logits: bool = False
    gating: int = 1
    scaled_inputs: bool = False
    beside_experts: float = 1.0
    normed_weights: bool = True
    parallel_by_key: bool = False
    partial: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    unweighted_norms: bool = False
    normed_embeddings: bool = False
    post_epsilon: float = 0.0
    final_norm: str = "output_norm"
    tiled_heads: bool = False


_PAIRS, _HALVES = Computes(rope="pairs"), Computes()
_GELU = Computes(activation="gelu")
_GEMMA = Computes(activation="gelu", scaled_by_width=True)
_GEMMA3 = replace(_GEMMA, windows=(6, True), window_base=10000.0, window_scaled=False, wide_layers=62)
_GEMMA3N = replace(_GEMMA3, windows=(5, True), wide_layers=0, scale=1.0, logit_cap=30.0, normed_values=True)
_GRANITE = Computes(rope="pairs", divided_logits=True)

ARCHITECTURES: dict[str, Computes] = {
    "llama": _PAIRS,
    "mistral3": _PAIRS,
    "internlm2": _PAIRS,
    "glm4": _PAIRS,
    "chatglm": _PAIRS,
    "ernie4_5": _PAIRS,
    "ernie4_5-moe": _PAIRS,
    "xverse": _PAIRS,
    "maincoder": Computes(rope="pairs", normed_after_rope=True),
    "arcee": Computes(rope="pairs", activation="relu2"),
    "deepseek": Computes(rope="pairs", normed_weights=False),
    "bailingmoe": Computes(rope="pairs", normed_weights=False),
    "command-r": _PAIRS,
    "cohere2": Computes(rope="pairs", windows=(4, True), rope_in_windows_only=True),
    "smollm3": Computes(rope="pairs", rope_step=4),
    "granite": _GRANITE,
    "granitemoe": _GRANITE,
    "minicpm": _GRANITE,
    "deepseek2": Computes(rope="pairs", normed_weights=False),
    "qwen2": _HALVES,
    "qwen2vl": _HALVES,
    "qwen2moe": Computes(normed_weights=False),
    "qwen3": _HALVES,
    "qwen3vl": _HALVES,
    "qwen3moe": _HALVES,
    "qwen3vlmoe": _HALVES,
    "qwen3next": _HALVES,
    "qwen35": Computes(tiled_heads=True),
    "qwen35moe": Computes(tiled_heads=True),
    "phi3": Computes(windows=(0, True)),  # which llama.cpp leaves out
    "qwen": _HALVES,
    "seed_oss": _HALVES,
    "exaone": _HALVES,
    "exaone4": Computes(windows=(4, True), rope_in_windows_only=True),
    "pangu-embedded": _HALVES,
    "orion": _HALVES,
    "openelm": _HALVES,
    "exaone-moe": Computes(windows=(4, True), rope_in_windows_only=True, normed_weights=False),
    "plm": Computes(rope="pairs", activation="relu2"),
    "olmoe": Computes(normed_weights=False),
    "dots1": Computes(normed_weights=False),
    "glm4moe": Computes(gating=2, normed_weights=False),
    "bailingmoe2": Computes(normed_weights=False),
    "minimax-m2": _HALVES,
    "hunyuan-dense": Computes(normed_after_rope=True),
    "hunyuan-moe": Computes(normed_after_rope=True),
    "mellum": Computes(windows=(4, True), window_scaled=False),
    "nemotron": Computes(norm="layer", activation="relu2"),
    "jais2": Computes(activation="relu2"),
    "codeshell": _GELU,
    "starcoder": Computes(rope="none", activation="gelu"),
    "stablelm": _HALVES,
    "olmo2": Computes(windows=(4, True), window_scaled=False),
    "phi2": _GELU,
    "starcoder2": _GELU,
    "gptneox": Computes(activation="gelu_erf", parallel_by_key=True),
    "falcon": Computes(activation="gelu_erf"),
    "bloom": Computes(rope="none", activation="gelu", slope=8.0),
    "mpt": Computes(rope="none", activation="gelu_erf"),
    "refact": Computes(rope="none", slope=8.0),
    "gpt2": Computes(rope="none", activation="gelu"),
    "gemma": _GEMMA,
    "gemma2": replace(_GEMMA, windows=(2, True), window=4096, wide_layers=46, score_cap=50.0, logit_cap=30.0),
    "gemma3": _GEMMA3,
    "gemma3n": _GEMMA3N,
    "gemma4": replace(_GEMMA3N, logit_cap=0.0),
    "llama4": Computes(
        rope="pairs",
        rope_step=4,
        windows=(4, True),
        window=8192,
        chunked=True,
        temperature=(0.1, 8192, 1.0),
        cool_where_unturned=True,
        bare_norms=128,
        gating=2,
        scaled_inputs=True,
        normed_weights=False,
    ),  # fmt: skip
    "phimoe": _HALVES,
    "olmo": Computes(rope="pairs", unweighted_norms=True),
    "dbrx": Computes(names={"attn_output_norm": "ffn_norm"}),
    "minicpm3": _HALVES,
    "deepseek32": Computes(rope="pairs", normed_weights=False),
    "glm-dsa": Computes(rope="pairs", gating=2, normed_weights=False),
    "mistral4": Computes(rope="pairs", normed_weights=False),
    "grok": Computes(
        activation="gelu",
        score_cap=30.0,
        embedding_scale=78.38367176906169,
        logit_scale=0.5773502691896257,
        beside_experts=0.5**0.5,
        names={"attn_output_norm": "post_attention_norm", "layer_output_norm": "post_ffw_norm"},
    ),  # fmt: skip
    "hy_v3": Computes(gating=2, normed_weights=False),
    "hunyuan_vl": Computes(normed_after_rope=True, stretched_base=True),
    "muse-glimmer": Computes(
        rope="pairs",
        windows=(4, True),
        window_scaled=False,
        rope_in_windows_only=True,
        normed_embeddings=True,
        post_epsilon=1e-8,
    ),
    "minimax-m3": Computes(activation="clamped", normed_weights=False),
    "plamo3": Computes(windows=(8, True), window_scaled=False),
    "spark2_5": Computes(windows=(4, True), activation="gelu"),
    "mimo2": Computes(windows=(0, True), window_scaled=False, gating=2),
    "step35": Computes(windows=(4, True), window_scaled=False, rotated=0.5, gating=2, normed_weights=False),
    "apertus": Computes(activation="xielu"),
    "cohere2moe": Computes(rope="pairs", windows=(4, True), rope_in_windows_only=True, normed_weights=False),
    "afmoe": Computes(scaled_by_width=True, windows=(4, True), rope_step=4, gating=2, normed_weights=False),
    "laguna": Computes(
        windows=(4, False), window_base=10000.0, window_scaled=False, soft_gate=True, gating=2, normed_weights=False
    ),
    "granite_swa": replace(_GRANITE, windows=(4, True)),
    "paddleocr": _HALVES,
    "deci": Computes(rope="pairs", partial=True),
    "bailingmoe3": Computes(rope="pairs", normed_weights=False),
    "kimi-linear": Computes(rope="none"),
    "mamba": Computes(rope="none", partial=True),
    "mamba2": Computes(rope="none", partial=True),
    "jamba": Computes(rope="none", normed_weights=False),
    "granitehybrid": _GRANITE,
    "falcon-h1": _HALVES,
    "nemotron_h": Computes(rope="none", activation="relu2", norm="rms", partial=True),
    "nemotron_h_moe": Computes(
        rope="none", activation="relu2", norm="rms", partial=True, gating=2, normed_weights=False
    ),
    "lfm2": Computes(windows=(0, True), final_norm="token_embd_norm"),
    "lfm2moe": Computes(final_norm="token_embd_norm"),
    "gpt-oss": Computes(windows=(2, True), activation="clamped", gating=3, normed_weights=False),
}
