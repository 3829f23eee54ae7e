"""The options that functions take by name, for type checkers and ``help``; one each for those of the command line."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, TypedDict, TypeVar

from .conversion import Options
from .errors import UsageError
from .flags import FLAGS

F = TypeVar("F", bound=Callable[..., Any])
AnyPath = str | os.PathLike[str]


class Running(TypedDict, total=False):
    """Of every job."""

    threads: int | None
    io: Literal["mmap", "pread"]
    force: bool
    update: bool
    verify: Literal["all", "recent", "none"]
    stop_after_s: float | str | None


class Copying(Running, total=False):
    """Of jobs that copy stored tensors."""

    chunk_bytes: int | str


class Splitting(Copying, total=False):
    """Of those that write several files."""

    split_max_bytes: int | str
    split_max_tensors: int
    no_tensor_first_split: bool


class Settings(Splitting, total=False):
    """Of conversions."""

    reuse: AnyPath | Sequence[AnyPath]
    no_reuse: bool
    manifest: bool
    imatrix: AnyPath | Sequence[AnyPath]
    include_weights: Sequence[str]
    exclude_weights: Sequence[str]
    pure: bool
    leave_output_tensor: bool
    output_tensor_type: str | None
    token_embedding_type: str | None
    tensor_types: Sequence[str]
    tensor_type_file: AnyPath | None
    copy: bool
    prune_layers: Sequence[int]
    override_kv: Sequence[str]
    allow_requantize: bool
    keep_split: bool
    max_shard_bytes: int | str | None
    pre: str | None
    vocab_only: bool
    mmproj: bool
    mmproj_type: str | None
    mtp: bool
    no_mtp: bool
    dspark: bool
    target_model: AnyPath | None
    base: AnyPath | None
    lora: str | Sequence[str]
    mistral_format: bool
    model_name: str | None
    metadata: AnyPath | None
    fuse_qkv: bool
    fuse_gate_up_exps: bool
    fp8_as_q8: bool
    dense_modules: bool
    allow_nonfinite: bool
    measure: bool
    compat: bool
    seed: int
    lenient: bool
    allow_crimes: bool
    evict: bool
    keep_packed: bool
    offline: bool
    refresh: bool
    report: AnyPath | None
    cluster: str | None
    cluster_tls: str | None


class Mixing(Running, total=False):
    """Of lists of types for a size."""

    imatrix: AnyPath | Sequence[AnyPath]
    include_weights: Sequence[str]
    exclude_weights: Sequence[str]
    leave_output_tensor: bool
    output_tensor_type: str | None
    token_embedding_type: str | None
    tensor_types: Sequence[str]
    tensor_type_file: AnyPath | None
    override_kv: Sequence[str]
    allow_requantize: bool
    pre: str | None
    compat: bool
    offline: bool
    refresh: bool
    report: AnyPath | None


def documented(settings: type) -> Callable[[F], F]:
    """Put every option of ``settings`` in a function's signature and docstring, where ``**settings`` are, for ``help``."""
    usual = {f.name: f.default for f in fields(Options)}
    told = {flag.field: flag.help for flag in reversed(FLAGS) if flag.field} | {
        "measure": "decode and add up the errors"
    }

    def of(function: F) -> F:
        signature = inspect.signature(function)
        named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        named += [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=usual[name], annotation=annotation.__forward_arg__
            )
            for name, annotation in settings.__annotations__.items()
        ]
        function.__signature__ = signature.replace(parameters=named)  # type: ignore[attr-defined]
        lines = "\n".join(f"    {name} : {told[name]}" for name in settings.__annotations__)
        head, _, tail = (function.__doc__ or "").partition("    settings : ")
        function.__doc__ = head + lines + "\n" + tail.partition("\n")[2]
        return function

    return of


def options_of(known: type, given: Mapping[str, Any], **further: Any) -> Options:
    """The options of a job.

    Parameters
    ----------
    known : the settings that it has
    given : some of these
    further : what its function takes besides

    Raises
    ------
    UsageError : it has no such setting, or one does not fit
    """
    for name in given:
        if name not in known.__annotations__:
            raise UsageError(f"there is no option {name!r} here", f"Those are {', '.join(known.__annotations__)}.")
    return Options.of({**further, **given})
