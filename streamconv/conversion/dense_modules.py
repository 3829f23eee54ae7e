"""The dense modules of sentence-transformers: matrices in folders of their own that the vector of a text is multiplied by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ..errors import BadInput, UsageError
from ..file_names import SAFETENSORS
from ..models.config import architecture
from ..models.families import FAMILIES
from ..rows import Rows
from ..sources.checkpoint import Checkpoint
from ..sources.local_files import stored_at
from ..sources.naming import shown
from ..sources.side_links import is_module

#: the names that a family's names are asked for, in the order in which runtimes multiply
_TARGETS = ("dense_2_out.weight", "dense_3_out.weight")
#: the weights of a module
WHOLE = SAFETENSORS.whole
_FLAG = "--sentence-transformers-dense-modules"
_RUNTIMES = "Runtimes multiply by two matrices, without bias and activation."


def with_dense_modules(checkpoint: Checkpoint, open_module: Callable[[str], Checkpoint]) -> Checkpoint:
    """``checkpoint`` with the matrices of the dense modules that its modules.json names before its tensors.

    Parameters
    ----------
    open_module : opens the folder of a module, by its name in that of the model

    Raises
    ------
    UsageError : there is no such module
    BadInput : a module computes what no runtime does, or its configuration and its matrix contradict each other
    InputMissing, NoPermission, NetworkError : as ``open_module``
    """
    modules = [module for module in checkpoint.json_list("modules.json") if isinstance(module, dict)]
    paths = [str(m.get("path", "")) for m in modules if str(m.get("type", "")).endswith("Dense")]
    place = checkpoint.called("modules.json")
    if not paths:
        raise UsageError(f"{_FLAG} has no effect: {place} names no dense module", "Leave it out.")
    if wrong := next((path for path in paths if not is_module(path)), None):
        raise BadInput(f"{place}: the path {shown(wrong)} is not that of a module, such as 2_Dense")
    targets = _TARGETS[1:] if paths == ["3_Dense"] else _TARGETS
    if len(paths) > len(targets):
        raise BadInput(f"{place} names {len(paths)} dense modules", _RUNTIMES)
    return _with_matrices(checkpoint, dict(zip(targets, map(open_module, paths), strict=False)))


def with_own_modules(checkpoint: Checkpoint, open_module: Callable[[str], Checkpoint]) -> Checkpoint:
    """``checkpoint`` with the matrices of those modules beside it that its family counts among its tensors, before these.

    Parameters
    ----------
    open_module : as of ``with_dense_modules``

    Raises
    ------
    BadInput, InputMissing, NoPermission, NetworkError : as ``with_dense_modules``
    """
    name = architecture(checkpoint.config)
    modules = FAMILIES[name].modules if name in FAMILIES else {}
    opened = {target: open_module(path) for path, target in modules.items() if _has(checkpoint, path)}
    return _with_matrices(checkpoint, opened) if opened else checkpoint


def modules_left_behind(checkpoint: Checkpoint) -> list[str]:
    """Notes on the modules beside ``checkpoint`` that have weights, of an output that has the model's own weights only."""
    configs = [name for name in checkpoint.side_names() if is_module(name.rpartition("/")[0])]
    names = [name for name in configs if "in_features" in (checkpoint.json(name) or {})]
    return [
        f"{checkpoint.folder}: the weights of {shown(name.rpartition('/')[0])} are not in the output: they belong to the model, but"
        " lie apart; copy that folder"
        for name in names
    ]


def _has(checkpoint: Checkpoint, path: str) -> bool:
    """Whether a module is beside the weights: with its configuration, which comes with them, or without one."""
    return f"{path}/config.json" in checkpoint.side_names() or stored_at(checkpoint.folder / path / WHOLE).is_file()


def _with_matrices(checkpoint: Checkpoint, opened: Mapping[str, Checkpoint]) -> Checkpoint:
    """``checkpoint`` with the matrix of each module before its tensors."""
    matrices = {name: _matrix(module) for name, module in opened.items()}
    return replace(
        checkpoint,
        tensors={**matrices, **checkpoint.tensors},
        inputs=(*checkpoint.inputs, *(file for module in opened.values() for file in module.inputs)),
        warnings=[*checkpoint.warnings, *(text for module in opened.values() for text in module.warnings)],
    )


def _matrix(module: Checkpoint) -> Rows:
    """The one matrix of a dense module."""
    activation = module.config.get("activation_function")
    if activation is not None and not str(activation).endswith("Identity"):
        raise BadInput(f"{module.folder / 'config.json'}: 'activation_function' is {shown(str(activation))}", _RUNTIMES)
    if others := [name for name in module.tensors if name != "linear.weight"]:
        raise BadInput(
            f"{module.path}: no runtime computes with tensor {shown(others[0])} of a dense module", _RUNTIMES
        )
    rows = module.tensors.get("linear.weight")
    if rows is None or len(rows.shape) != 2:
        raise BadInput(f"{module.path} has no matrix linear.weight", "Fetch the module's folder again.")
    for key, size in zip(("out_features", "in_features"), rows.shape, strict=True):
        stated = module.config.get(key)
        if stated is not None and stated != size:
            raise BadInput(
                f"{module.folder / 'config.json'}: {key!r} is {shown(str(stated))}, but linear.weight has shape"
                f" {list(rows.shape)}",
                "Fetch the module's folder again.",
            )
    return rows
