"""What is in a folder that holds no model: a download or an archive that is not complete, another program's weights."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..file_names import OF_FOLDERS, container_of, fits
from .naming import shown_list

#: patterns of names -> what these are and what to do; the first whose names are there is told
_NO_MODELS = {
    ("*.part", "*.partial", "*.aria2", "*.crdownload", "*.download", "*.!qB", "*.tmp"): "a download that is not"
    " complete. Let it finish, or start it again.",
    ("*.zip", "*.tar", "*.tar.*", "*.tgz", "*.gz", "*.bz2", "*.xz", "*.7z", "*.rar"): "an archive, or compressed. Unpack it.",
    ("openvino_*", "*.keras", "*.h5", "*.mlpackage", "*.mlmodel", "*.tflite", "*.engine", "*.llamafile"): "weights for another"
    " runtime. Give the checkpoint that they were made from.",
}  # fmt: skip
_OF_TRAINER = ("training_args.bin", "optimizer*", "scheduler*", "rng_state*", "scaler.pt", "trainer_state.json")


def no_model(folder: Path, present: Collection[str]) -> str:
    """What a ``folder`` without weights, of the names ``present``, holds instead and what to do; "" where they tell nothing."""
    for patterns, what in _NO_MODELS.items():
        if found := _fitting(present, patterns):
            return f"{shown_list(found)}: this is {what}"
    kept = _fitting(present, _OF_TRAINER)
    if named := sorted(name for name in present if container_of(name) in OF_FOLDERS and name not in kept):
        return f"It holds {shown_list(named)}: if the weights are in one of them, give that file."
    if kept:
        return (
            f"{shown_list(kept)}: a trainer keeps this beside the weights. Save the model itself (save_model,"
            " save_pretrained), or give the folder that has it."
        )
    inner = sorted({path.parent for ending in ("safetensors", "gguf") for path in folder.glob(f"*/*.{ending}")})
    return f"There are weights in a folder inside: give {inner[0]}." if inner else ""


def _fitting(present: Collection[str], patterns: tuple[str, ...]) -> list[str]:
    return sorted(name for name in present if fits(name, patterns))
