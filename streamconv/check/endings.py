"""Which tokens end generation: a missing id is not "none" but a default of the vocabulary type."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import BadInput
from ..sources.naming import shown
from .finding import Finding
from .subject import Subject

#: vocabulary type -> key -> the id a loader starts from
_DEFAULTS = {
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "gpt2": {"bos": 11, "eos": 11},
    "bert": {"bos": 101, "unknown": 100, "seperator": 102, "padding": 0, "mask": 103},
    "gemma4": {"bos": 2, "eos": 1, "unknown": 3, "padding": 0},
}
_KEYS = ("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask")
#: token texts that end generation whatever the keys say
_END_TEXTS = frozenset(
    (
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
        *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"),
        *("<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
    )
)
#: the fill-in-the-middle markers that end generation too: key -> texts it is found by when the key is absent
_FILL_TEXTS = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}


def check(subject: Subject) -> Iterator[Finding]:
    """Say where generation will stop, and doubt what looks like an accident."""
    model = subject.metadata.get("tokenizer.ggml.model")
    if not subject.tokens or model not in _DEFAULTS:
        return
    yield from _out_of_range(subject)
    if model == "bert":
        return
    key = "tokenizer.ggml.eos_token_id"
    if key not in subject.metadata:
        default = _DEFAULTS[model]["eos"]
        yield Finding(
            "warning",
            f"{key} is missing: the loader uses id {default}, {_text(subject, default)}, as end of generation",
            key,
        )
    if "tokenizer.ggml.bos_token_id" not in subject.metadata and subject.metadata.get("tokenizer.ggml.add_bos_token"):
        default = _DEFAULTS[model]["bos"]
        message = (
            f"bos_token_id is missing and add_bos_token is set: every prompt begins with {_text(subject, default)}"
        )
        yield Finding("warning", message, "tokenizer.ggml.bos_token_id")
    ends = end_ids(subject)
    told = ", ".join(f"{i} {_text(subject, i)}" for i in sorted(ends))
    yield Finding("note", f"generation ends at {told}" if ends else "no token ends generation", key)
    yield from _turns(subject, ends)


def end_ids(subject: Subject) -> set[int]:
    """The ids at which llama.cpp will stop: eos, eot, eom, and tokens known by their text."""
    model = str(subject.metadata.get("tokenizer.ggml.model"))
    ids = {_id(subject, key, _DEFAULTS.get(model, {}).get(key)) for key in ("eos", "eot", "eom", *_FILL_TEXTS)}
    known = set(_END_TEXTS)
    for key, names in _FILL_TEXTS.items():
        if f"tokenizer.ggml.{key}_token_id" not in subject.metadata:
            known.update(names)
    try:
        there = known & subject.distinct
        texts = {text: i for i, text in enumerate(subject.texts) if text in there} if there else {}
    except BadInput:
        texts = {}  # told by the check of the vocabulary
    if "<|return|>" in texts and "<|call|>" in texts:
        texts.pop("<|end|>", None)  # ends a message there, not the answer
    return {i for i in ids | set(texts.values()) if i is not None}


def _id(subject: Subject, key: str, default: int | None) -> int | None:
    found = subject.metadata.get(f"tokenizer.ggml.{key}_token_id", default)
    return found if type(found) is int and 0 <= found < len(subject.tokens) else None


def _out_of_range(subject: Subject) -> Iterator[Finding]:
    for name in _KEYS:
        key = f"tokenizer.ggml.{name}_token_id"
        found = subject.metadata.get(key)
        if type(found) is int and not 0 <= found < len(subject.tokens):
            message = f"{key} is {found}, the vocabulary ends at {len(subject.tokens) - 1}: the loader ignores it"
            yield Finding("warning", message, key)


def _turns(subject: Subject, ends: set[int]) -> Iterator[Finding]:
    """A chat template closes turns with some marker; generation must stop there."""
    template = subject.metadata.get("tokenizer.chat_template")
    if not isinstance(template, str):
        return
    try:
        known = {subject.tokens[i] for i in ends}
    except BadInput:
        return
    markers = [text for text in ("<|eot_id|>", "<|im_end|>", "<end_of_turn>") if text in template]
    for marker in markers:
        if marker not in known:
            message = (
                f"the chat template ends turns with {marker}, which is not a token: generation will not stop there"
            )
            yield Finding("warning", message, "tokenizer.chat_template")


def _text(subject: Subject, token: int) -> str:
    try:
        return shown(subject.tokens[token], 40)
    except (IndexError, BadInput):
        return "(not in the vocabulary)"
