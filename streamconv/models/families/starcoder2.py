"""StarCoder 2: layer norms and biases everywhere, no gate."""

from __future__ import annotations

from ..assumed import GATED_SILU, WINDOW_IGNORED
from ..family import Family, class_defaults
from ..keys import BASE
from ..tokenizers import BPE
from ._gpt import GELU

FAMILY = Family(
    arch="starcoder2",
    architectures=("Starcoder2ForCausalLM",),
    tokenizer=BPE,
    classes={"starcoder2": class_defaults(
        49152, 4096, 3072, 12288, 30, 24, 2, rms_norm_eps=None, norm_epsilon=1e-5, hidden_act="gelu_pytorch_tanh",
        tie_word_embeddings=True, bos_token_id=50256, eos_token_id=50256,
    )},
    assumes={
        "hidden_act": GELU, "sliding_window": WINDOW_IGNORED, **{k: GATED_SILU[k] for k in ("rope_type", "partial_rotary_factor")},
    },
    idle=("mlp_type", "norm_type"),
    keys=BASE,
)  # fmt: skip
