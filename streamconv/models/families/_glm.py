"""What the GLM models share: special tokens by their texts, and heads that are rotated in part."""

from __future__ import annotations

from collections.abc import Mapping

from ...metadata import Metadata
from ..config import Config
from ..keys import Key


def tokens_by_text(texts: Mapping[str, str], instead: bool = False) -> Key:
    """Special tokens that the files do not name: the middle of their key -> their text, where there is such a token.

    ``instead``: of those that the files name, too.
    """

    def key(m: Metadata, _a: str, _c: Config) -> None:
        ids = {f"tokenizer.ggml.{kind}_token_id": text for kind, text in texts.items()}
        missing = {text for name, text in ids.items() if instead or name not in m}
        if not missing:
            return
        found = {text: n for n, text in enumerate(m.get("tokenizer.ggml.tokens", ())) if text in missing}
        for name, text in ids.items():
            if (instead or name not in m) and text in found:
                m.u32(name, found[text])

    return key


def rotated(c: Config) -> int:
    """Rotated dimensions of a head, half of them where it is not said."""
    factor = c.rope.get("partial_rotary_factor")
    return int(c.head_dim * (0.5 if factor is None else factor))


def rotated_dimensions(m: Metadata, a: str, c: Config) -> None:
    """Rotated dimensions of a head."""
    m.u32(f"{a}.rope.dimension_count", rotated(c))


GLM4_TOKENS = tokens_by_text(
    {"eos": "<|endoftext|>", "unknown": "<|endoftext|>", "bos": "<|endoftext|>", "eot": "<|user|>"}
)
GLM_MOE_TOKENS = tokens_by_text({
    "bos": "[gMASK]", "eot": "<|user|>", "unknown": "<|endoftext|>", "eom": "<|observation|>",
})  # fmt: skip
