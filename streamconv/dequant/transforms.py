"""Rotations of compressed-tensors (``transform_config``): those that are part of the stored weights, and those that are not.

A scheme lists places. At ``weight_input`` and ``weight_output`` the matrix was multiplied before it was stored, and whatever
undoes that lies in another stored matrix: such a model computes the same as before, with the weights as they are. Everywhere else
(inputs and outputs of layers, queries, the cache of keys) the model itself has to turn its activations, which no converted file
can say.

Source: compressed_tensors/transform/transform_args.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..sources.naming import shown

_STORED = ("weight_input", "weight_output")


def check_transforms(config: object, where: Path) -> None:
    """Refuse a rotation that is applied while the model runs.

    Parameters
    ----------
    config : the value of ``transform_config``

    Raises
    ------
    BadInput : it is not understood, or such a rotation is in it; names it
    """
    if not config:
        return
    groups = config.get("config_groups") if isinstance(config, Mapping) else None
    if not isinstance(config, Mapping) or (groups is not None and not isinstance(groups, Mapping)):
        raise BadInput(f"{where}: quantization_config: transform_config is not an object")
    unknown = next((key for key, value in config.items() if key != "config_groups" and value), None)
    if unknown is not None:
        raise BadInput(f"{where}: quantization_config: transform_config: {shown(unknown)} is not understood")
    for name, scheme in (groups or {}).items():
        for place in _places(scheme, f"{where}: quantization_config: transform_config: {shown(name)}"):
            if place not in _STORED:
                kind = shown(str(scheme.get("type")))
                raise BadInput(
                    f"{where}: quantization_config: transform_config: {shown(name)} ({kind}) is a rotation that the model applies"
                    f" while it runs (location {shown(str(place))}), so the stored weights are not those of the layers",
                    "Use the checkpoint this one was converted from, or one without rotations of activations.",
                )


def _places(scheme: Any, where: str) -> list[Any]:
    apply = scheme.get("apply", []) if isinstance(scheme, Mapping) else None
    if not isinstance(apply, list) or not all(isinstance(arguments, Mapping) for arguments in apply):
        raise BadInput(f"{where} is not a rotation")
    return [arguments.get("location") for arguments in apply]
