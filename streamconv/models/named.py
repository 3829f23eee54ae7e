"""Which architecture config.json means where it does not say, or names a wrapper: that of its ``model_type``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ..errors import BadInput
from ..sources.checkpoint import Checkpoint
from ..sources.hf_config import flattened, text_sections
from ..sources.known_layouts import instead
from ..sources.naming import shown
from .config import OUTER as WITH_MORE
from .config import architecture
from .families import FAMILIES
from .multimodal import OUTER
from .projectors import PROJECTORS

#: classes around a model, under whose name it is saved from inside of them; FSDP puts its name before that of the model
_WRAPPERS = re.compile(r"(Peft|Auto)Model\w*|OptimizedModule|(Fully|Distributed|Data)\w*Parallel\w*|FSDP(?P<inner>\w*)")
_DRAFT_OF_LLAMA = "LlamaForCausalLMEagle3"
#: kinds of classes of a ``model_type``, the one that makes text first
_KINDS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "Model")


def named(checkpoint: Checkpoint) -> Checkpoint:
    """``checkpoint`` with the architecture in its configuration; a note says so where config.json does not.

    Raises
    ------
    BadInput : there is no config.json, or nothing in it says which model it is
    """
    config, path = checkpoint.config, checkpoint.folder / checkpoint.config_file
    if not config:
        hint = instead(checkpoint.folder, os.listdir(checkpoint.folder)) if checkpoint.folder.is_dir() else ""
        raise BadInput(
            f"{checkpoint.path}: there is no config.json beside it, which says what model it is",
            hint or "Copy the model's config.json and tokenizer into the folder of the weights.",
        )
    name = architecture(config)
    wrapper = _WRAPPERS.fullmatch(name)
    if name in FAMILIES and FAMILIES[name].arch == "llama" and _drafts(flattened(config)):
        return replace(checkpoint, config={**config, "architectures": [_DRAFT_OF_LLAMA]})
    if name and (wrapper is None or name in FAMILIES):
        notes = [f"{path} {said}" for said in _other_type(name, flattened(config).get("model_type"))]
        return replace(checkpoint, warnings=[*checkpoint.warnings, *notes]) if notes else checkpoint
    known = [*FAMILIES, *PROJECTORS, *OUTER]
    meant = wrapper["inner"] if wrapper is not None and wrapper["inner"] in known else _of_type(config, known)
    said = f"names {name!r}, a wrapper," if wrapper is not None else "has no 'architectures'"
    if not meant:
        kind = config.get("model_type")
        also = f", and its model_type {shown(str(kind))} is not a supported one" if kind else ", nor a model_type"
        raise BadInput(
            f"{path} {said}{also}", 'Write the model\'s class there, such as "architectures": ["LlamaForCausalLM"].'
        )
    note = f"{path} {said}; it is read as {meant!r}, as model_type is {shown(str(config.get('model_type')))}"
    return replace(
        checkpoint, config={**config, "architectures": [meant]}, warnings=[*checkpoint.warnings, note]
    )  # fmt: skip


def _drafts(config: Mapping[str, object]) -> bool:
    """Whether one layer of Llama is meant that drafts for another model, which some save under the name of the whole class."""
    return "draft_vocab_size" in config and config.get("num_hidden_layers") == 1


def _other_type(name: str, kind: object) -> Iterator[str]:
    """What to say of an architecture and a ``model_type`` that do not belong together."""
    if name in FAMILIES and name not in WITH_MORE and isinstance(kind, str) and kind not in FAMILIES[name].classes:
        others = [other for other, family in FAMILIES.items() if kind in family.classes]
        if others:
            other = _of_type({"model_type": kind}, others) or others[0]
            yield f"names {name!r}, but its model_type {kind!r} is that of {other!r}: the former is taken"


def _of_type(config: Mapping[str, object], known: Iterable[str]) -> str:
    """The class among ``known`` that transformers has for the ``model_type``, "" where there is none."""
    space = config.get("ssm_cfg")
    if isinstance(space, Mapping):  # as Mamba's own library saves it
        name = f"{space.get('layer', 'Mamba')}ForCausalLM"
        return name if name in known else ""
    kinds = (*_KINDS[1::-1], *_KINDS[2:]) if text_sections(config) else _KINDS
    stem = re.sub(r"[-_]", "", str(config.get("model_type") or "").lower().removesuffix("_text"))
    fitting = [
        name for kind in kinds for name in sorted(known, reverse=True) if name.lower() == f"{stem}{kind}".lower()
    ]
    return fitting[0] if stem and fitting else ""
