"""What runtimes compute whatever config.json says, and which of its keys say nothing of what a model computes.

What is stated otherwise and has no key in a GGUF file is refused, or told where it changes little or long texts only. What neither
a family nor this module has ever heard of is named, so that nothing is lost in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ..errors import BadInput
from ..sources.hf_config import section
from ..sources.naming import shown
from .config import Config, stated_keys

Values = tuple[Any, ...]


class Assumed(NamedTuple):
    """What runtimes take a key of the configuration to be.

    Attributes
    ----------
    values : with which they compute as the configuration says; or a function of the value that is stated and the configuration
    otherwise : what they do where it says another; empty: such a model is refused, as all it says would be wrong
    null : whether null is another too, or no such key
    """

    values: Values | Callable[[Any, Config], Values]
    otherwise: str = ""
    null: bool = False


_NO_WINDOW = "runtimes use full attention in every layer"
_SPARSE = "runtimes look for experts in every layer"
#: keys inside ``rope_parameters`` that are written, or said above them too
_ROPE = (
    "type", "rope_type", "rope_theta", "factor", "original_max_position_embeddings", "extrapolation_factor",
    "attention_factor", "attn_factor", "beta_fast", "beta_slow", "low_freq_factor", "high_freq_factor", "mrope_section",
    "mrope_interleaved", "interleaved", "short_factor", "long_factor", "partial_rotary_factor", "truncate",
)  # fmt: skip
#: patterns of keys that say how a model was trained, is saved, or likes to be run; biases, RoPE and the tie of embeddings are
#: looked at for all, see contradictions.py
_IDLE = (
    "_*", "*_token_id", "*_token_ids", "*_token_index", "*dropout*", "*_pdrop", "*loss*", "*initializer*", "*jitter*",
    "init_device", "init_std", "output_attentions", "output_hidden_states", "output_past", "output_router_logits",
    "output_scores", "forced_*", "use_cache", "use_flash*", "*attn_implementation", "*_bias", "pretraining_tp", "architectures",
    "auto_map", "model_type", "name_or_path", "tokenizer_class", "transformers_version", "*_version", "dtype", "torch_dtype",
    "torchscript", "use_bfloat16", "return_dict*", "gradient_checkpointing", "quantization_config", "is_encoder_decoder",
    "chunk_size_feed_forward", "cross_attention_hidden_size", "tie_encoder_decoder", "pruned_heads", "problem_type", "id2label",
    "label2id", "num_labels", "finetuning_task", "task_specific_params", "prefix", "max_length", "min_length", "do_sample",
    "early_stopping", "num_beam*", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
    "length_penalty", "*no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "remove_invalid_values",
    "rope_parameters", "rope_scaling", "rope_theta", "rotary_emb_base", "partial_rotary_factor",
    "rope_pct", "rope_percent", "rotary_pct", "original_max_position_embeddings",
    "tie_word_embeddings", "exponential_decay_length_penalty", "*suppress_tokens",
    "max_window_layers", "cache_implementation", "unsloth_*", "vision_config", "audio_config",
)  # fmt: skip


def layers(n: int, kind: str = "sliding_attention", last: str = "full_attention") -> Assumed:
    """Every ``n``-th layer is of kind ``last``, the others are of ``kind``."""
    return Assumed(
        lambda _, c: ([kind if (i + 1) % n else last for i in range(c.n_layers)],),
        f"runtimes treat every layer as {kind} except every {n}th" if n > 1 else _NO_WINDOW,
    )


def attention_scale(n_layers_of_27b: int) -> Assumed:
    """Gemma's attention is scaled by the width of a head, or in the 27B model by another width."""
    return Assumed(
        lambda _, c: (c.hidden // max(c.n_heads, 1) if c.n_layers == n_layers_of_27b else c.head_dim,),
        "runtimes scale attention by the width of a head",
    )


ROPE: Mapping[str, Assumed] = {
    "partial_rotary_factor": Assumed((1,)),
    "rope_type": Assumed(
        ("default", "linear", "yarn", "llama3"), "no GGUF key expresses this: runtimes do not scale positions"
    ),
}
#: What runtimes compute in decoders of the Llama layout.
GATED_SILU: Mapping[str, Assumed] = {
    **ROPE,
    "hidden_act": Assumed(("silu", "swish")),
    "truncate": Assumed((True,), "runtimes round the bounds of yarn to whole dimensions"),
    "use_sliding_window": Assumed((False,), _NO_WINDOW),
    "layer_types": layers(1),
    "draft_vocab_size": Assumed(()),
}


def _as_long_as_the_context(stated: Any, config: Config) -> Values:
    length = config.get("max_position_embeddings")
    fits = isinstance(stated, (int, float)) and isinstance(length, (int, float)) and stated >= length
    return (stated,) if fits else ()


#: A window in every layer, which runtimes do not know.
WINDOW_IGNORED = Assumed(_as_long_as_the_context, _NO_WINDOW)
#: What they compute in Gemma, whatever an old ``hidden_act`` says.
GELU_TANH: Mapping[str, Assumed] = {
    **ROPE,
    "hidden_activation": Assumed(("gelu_pytorch_tanh",)),
    "hidden_act": Assumed(("gelu_pytorch_tanh", "gelu")),
    "attention_bias": Assumed((False,)),
    "use_bidirectional_attention": Assumed((False,)),
}
EVERY_LAYER_SPARSE: Mapping[str, Assumed] = {
    "decoder_sparse_step": Assumed((1,), _SPARSE),
    "mlp_only_layers": Assumed(([],), _SPARSE),
}


def scaled_to_one(done: bool) -> Mapping[str, Assumed]:
    """Whether runtimes scale the weights of the experts that a token uses to a sum of one."""
    what = "scale" if done else "do not scale"
    return {"norm_topk_prob": Assumed((done,), f"runtimes {what} the weights of a token's experts to a sum of one")}


def judged(config: Config, assumes: Mapping[str, Assumed], arch: str) -> Iterator[str]:
    """What config.json says otherwise than runtimes compute, where that may be told.

    A key with dots is looked up in config.json as it stands, section by section; the name of a root's key begins with one.

    Raises
    ------
    BadInput : it may not
    """
    for key, assumed in assumes.items():
        stated = _stated(config, key)
        key = key.removeprefix(".")
        if stated is None and not assumed.null:
            continue
        values = assumed.values(stated, config) if callable(assumed.values) else assumed.values
        if stated in values:
            continue
        by_default = "" if "." in key or config.raw_value(key) is not None or key in config.rope else " by default"
        said = f"{config.place}: {key!r} is {_short(stated)}{by_default}"
        if not assumed.otherwise:
            known = " or ".join(map(repr, values)) or "nothing of the kind"
            raise BadInput(
                f"{said}, runtimes compute {arch!r} with {known}",
                "No GGUF key expresses this, so the output would be a different model.",
            )
        yield f"{said}, but {assumed.otherwise}"


def _stated(config: Config, key: str) -> Any:
    if "." not in key:
        return config.rope.get(key) if config.get(key) is None else config.get(key)
    *sections, name = key.removeprefix(".").split(".")
    found: Any = config.raw
    for each in sections:
        found = section(found, each)
    return found.get(name)


def unknown(config: Config, assumes: Mapping[str, Assumed], idle: tuple[str, ...]) -> list[str]:
    """Keys of config.json that were never looked up, differ from other models of the class, and are not known to be idle."""
    known = {*assumes, *getattr(config.values, "asked", ()), *(["rope_local_base_freq"] if config.rope_local else [])}
    found = [key for key in stated_keys(config.raw) if key not in known and not _is_idle(key, idle)]
    found = [key for key in found if config.raw_value(key) not in (None, "", [], {}, config.defaults.get(key))]
    of_rope = [f"rope_parameters.{key}" for key in config.rope if key not in (*_ROPE, *assumes)]
    return found + [key for key in of_rope if not _is_idle(key, idle)]


def _short(stated: Any) -> str:
    """What config.json says, as Python writes it, where that is not long."""
    text = repr(stated)
    return text if len(text) <= 80 else shown(text)


def _is_idle(key: str, idle: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in (*_IDLE, *idle))
