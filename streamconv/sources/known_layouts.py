"""Layouts of checkpoints that are well known and not read: what a folder or file is, by the names in it, and what to do instead."""

from __future__ import annotations

import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from ..errors import BadInput
from ..file_names import GGUF, OF_FOLDERS, SBS, container_of, part_of
from .naming import shown_list
from .no_model import no_model


class KnownLayout(NamedTuple):
    """A layout: patterns of the names that it is known by, what these are, and what to do.

    Attributes
    ----------
    is_part : whether one such file, given by itself, is no model either
    """

    patterns: tuple[str, ...]
    what: str
    instead: str
    is_part: bool = False


_ZERO = (
    "Run zero_to_fp32.py, which DeepSpeed leaves beside them, or save with stage3_gather_16bit_weights_on_model_save."
)
#: the first whose names are there is told
_LAYOUTS = (
    KnownLayout(
        ("adapter_config.json", *(each.adapter for each in OF_FOLDERS)), "a LoRA adapter",
        "Merge it into its model with a recipe that names model: MODEL+ADAPTER, or write the adapter itself to OUT.gguf.",
    ),
    KnownLayout(
        ("consolidated*.pth",), "slices of tensors in Meta's own layout",
        "Fetch the Hugging Face form of the model: config.json and model*.safetensors.", True,
    ),
    KnownLayout(
        ("consolidated*.safetensors", "params.json"), "Mistral's own layout, whose names and order of rows are its own",
        "Convert it to GGUF with --mistral-format; for anything else fetch the Hugging Face form of the model.",
    ),
    KnownLayout(
        ("*-TP-*.safetensors",), "slices for the ranks of tensor parallelism, as Grok 2 is published",
        "Join the slices of each name, rows of w1 and w3, columns of w2, and save the whole as model*.safetensors.", True,
    ),
    KnownLayout(
        ("*world_size_*_rank_*", "*fsdp*rank*"), "a distributed checkpoint (FSDP): every file is one rank's part of the tensors",
        "Merge the ranks with the tool that wrote them (verl: python -m verl.model_merger merge), then convert its output.", True,
    ),
    KnownLayout(
        ("*.distcp", "pytorch_model_fsdp*"), "a distributed checkpoint of torch: every file is one rank's part of the tensors",
        "Merge it first: accelerate merge-weights, or python -m torch.distributed.checkpoint.format_utils dcp_to_torch.", True,
    ),
    KnownLayout(
        ("*zero_pp_rank_*", "*optim_states.pt"), "a DeepSpeed ZeRO checkpoint: every file is one rank's part", _ZERO, True,
    ),
    KnownLayout(
        ("global_step*", "zero_to_fp32.py", "mp_rank_*_model_states.pt"), "a DeepSpeed checkpoint",
        f"{_ZERO} Weights that ZeRO did not spread are in global_step…/mp_rank_00_model_states.pt.",
    ),
    KnownLayout(
        ("mp_rank_*", "tp_rank_*", "iter_[0-9]*", "latest_checkpointed_iteration.txt", "*.nemo"),
        "a checkpoint of Megatron or NeMo",
        "Convert it to the Hugging Face form first, with the converter of the framework that wrote it.",
    ),
    KnownLayout(
        ("model_index.json", "diffusion_pytorch_model*"), "a pipeline of diffusers, of several models",
        "Give the folder of one that is a language model, such as text_encoder.",
    ),
    KnownLayout(
        ("tf_model*.h5", "flax_model*.msgpack", "rust_model.ot"), "weights of TensorFlow, Flax or Rust",
        "Load them with transformers (from_tf=True, from_flax=True) and save_pretrained: that writes model.safetensors.",
    ),
    KnownLayout(("*.onnx",), "ONNX graphs", "Give the checkpoint that they were exported from."),
    KnownLayout(("*.npz",), "weights of numpy or MLX", "Give the checkpoint that they were made from."),
)  # fmt: skip


def instead(folder: Path, present: Collection[str]) -> str:
    """What to do with a ``folder`` of the names ``present`` that is no checkpoint; "" where they tell nothing."""
    if unfinished := unfinished_download(folder):
        return unfinished
    if ggufs := _models(present):
        what = "the first of its parts" if part_of(ggufs[0]) else "a whole model"
        more = f" (others: {shown_list(ggufs[1:])})" if ggufs[1:] else ""
        kind = "GGUF" if container_of(ggufs[0]) is GGUF else "gemma.cpp's"
        return f"It holds {kind} files. Give the file instead: {folder / ggufs[0]}, {what}{more}."
    if told := by_names(present):
        return told
    if steps := [name for name in present if re.fullmatch(r"checkpoint-\d+", name)]:
        last = max(steps, key=lambda name: int(name.rpartition("-")[2]))
        return f"It holds checkpoints of a training run: give one, such as {folder / last}."
    if models := sorted(name for name in present if name.startswith("models--")):
        return f"It is a cache of huggingface_hub: give the folder of a model, such as {folder / models[0]}."
    return no_model(folder, present)


def by_names(present: Collection[str]) -> str:
    """What the layout of files of the names ``present`` is, and what to do instead; "" where it is not known."""
    for layout in _LAYOUTS:
        if found := _matching(layout, present):
            return f"{shown_list(found)}: this is {layout.what}. {layout.instead}"
    return ""


def unfinished_download(folder: Path) -> str:
    """What to do where huggingface_hub left files of a ``folder`` half there, in its cache or beside them; "" where it did not."""
    cached = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else folder
    for place, pattern in (
        (cached, "*.incomplete"),
        (folder / ".cache" / "huggingface" / "download", "**/*.incomplete"),
    ):
        if left := sorted(place.glob(pattern)):
            return f"{place} has files of a download that did not finish ({shown_list([p.name for p in left])}): run it again."
    return ""


def refuse_part(path: Path) -> None:
    """BadInput for a file that has the name of one rank's part, or of a slice, of a model."""
    for layout in _LAYOUTS:
        if layout.is_part and _matching(layout, [path.name]):
            raise BadInput(f"{path} has the name of a file of {layout.what}; that is not read", layout.instead)


def _matching(layout: KnownLayout, present: Collection[str]) -> list[str]:
    return [name for pattern in layout.patterns for name in sorted(present) if fnmatchcase(name, pattern)]


def _models(present: Collection[str]) -> list[str]:
    """The files of GGUF and gemma.cpp that each are a model, or the first part of one; projectors and importance matrices last."""
    ggufs = [name for name in present if container_of(name) in (GGUF, SBS)]
    first = [name for name in ggufs if not (part := part_of(name)) or part.number == 1]
    return sorted(first, key=lambda name: (name.startswith(("mmproj", "imatrix")), name))
