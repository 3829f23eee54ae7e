"""The section of config.json, or of a file beside it, that says how weights are stored: found, and normalized."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BadInput
from ..sources.checkpoint import Checkpoint
from ..sources.hf_config import TEXT_SECTIONS, THINKER, VISION, section
from ..sources.naming import shown
from .scheme import Scheme

KEYS = ("quantization_config", "compression_config")
#: MLX's key, which counts where it looks like MLX's
MLX_KEY = "quantization"
_SECTIONS = (*TEXT_SECTIONS, THINKER, VISION)
#: side files that older tools wrote instead of a section of config.json, and the method they imply
SIDE_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq", "hf_quant_config.json": "modelopt"}
#: keys beside the sizes in sections of GPTQ and AWQ that have no quant_method
_OF_OTHERS = frozenset({"desc_act", "damp_percent", "zero_point", "sym"})
#: keys of bitsandbytes that its sections had before they had a quant_method
_BNB = ("load_in_4bit", "load_in_8bit")


def read_scheme(checkpoint: Checkpoint, given: Mapping[str, Any] | None) -> Scheme:
    """The scheme of ``checkpoint``; ``given`` stands in for the section of config.json.

    Raises
    ------
    BadInput : the section is not an object, or its ``quant_method`` is not a name
    """
    values = given if given is not None else _section(checkpoint)
    if values is None:
        return Scheme("", {})
    nested = values.get("quantization")
    if isinstance(nested, Mapping):  # ModelOpt's own file has its keys one level below
        values = {**{key: value for key, value in values.items() if key != "quantization"}, **nested}
    method = values.get("quant_method")
    if method is None:
        method = _implied(values)
    if not isinstance(method, str):
        raise BadInput(f"{checkpoint.path}: quantization_config: quant_method is {shown(str(method))}, not a name")
    return _spelled_alike(method.lower(), values)


def _spelled_alike(said: str, values: Mapping[str, Any]) -> Scheme:
    if said in ("auto-round", "intel/auto-round", "auto_round"):
        method, values = _auto_round(values)
        return Scheme(method, values, "auto-round")
    if said.startswith("modelopt"):  # modelopt_fp4 and the like
        return Scheme("modelopt", values, said)
    return Scheme(said, values, said)


def _auto_round(values: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Whose layout AutoRound's ``packing_format`` names: ``auto_round:`` and perhaps a layout and a kernel."""
    packing = str(values.get("packing_format"))
    kind = packing.removeprefix("auto_round").removeprefix(":")
    if "awq" in kind:
        return "awq", values
    if "gptq" in kind and "gptqmodel" not in kind:
        return "gptq", values
    if kind in ("", "gptqmodel", "exllamav2", "triton", "tritonv2") or kind.startswith("gptqmodel:"):
        return "gptq", {**values, "checkpoint_format": "gptq_v2"}  # zero points as they are
    if kind == "llm_compressor":
        return "compressed-tensors", values
    if kind == "fp8_static":
        return "fp8", values
    if kind == "mlx":
        return "mlx", values
    return f"auto-round, packed as {packing}", values


def _section(checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    config = checkpoint.config
    for where in (config, *(section(config, name) for name in _SECTIONS)):
        mlx = where.get(MLX_KEY)
        if isinstance(mlx, Mapping) and is_of_mlx(mlx):
            return {"quant_method": "mlx", **mlx}
        for key in KEYS:
            if where.get(key) is not None:
                found = where[key]
                if not isinstance(found, Mapping):
                    raise BadInput(f"{checkpoint.path}: config.json: {key} is not an object")
                return found
    if not config or not checkpoint.path.is_dir():
        return None
    for name, method in SIDE_FILES.items():
        values = checkpoint.json(name)
        if values is not None:
            return {"quant_method": method, **values}
    return None


def is_of_mlx(values: object) -> bool:
    """Whether ``values`` look like a section as MLX writes it: sizes, and no name of a method."""
    return (
        isinstance(values, Mapping)
        and "bits" in values
        and "group_size" in values
        and values.get("quant_method") in (None, "mlx")
        and not _OF_OTHERS & values.keys()
    )


def _implied(values: Mapping[str, Any]) -> str:
    """The method of a section without a name for it."""
    producer = values.get("producer")
    if isinstance(producer, Mapping) and producer.get("name") == "modelopt":
        return "modelopt"
    if any(values.get(key) for key in _BNB):
        return "bitsandbytes"
    if "config_groups" in values:
        return "compressed-tensors"
    if "desc_act" in values:
        return "gptq"
    return "mlx" if is_of_mlx(values) else ""


def without_scheme(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json as that of the decoded model."""
    clean = _clean(config)
    for name in _SECTIONS:
        if isinstance(part := clean.get(name), Mapping):
            clean[name] = _clean(part)
    return clean


def _clean(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in values.items() if key not in KEYS and not (key == MLX_KEY and is_of_mlx(value))
    }
