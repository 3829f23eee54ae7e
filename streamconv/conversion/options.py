"""What a conversion can be told."""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..engine.budget import default_ram
from ..engine.plan import CHUNK_BYTES
from ..errors import UsageError
from ..flags import FLAGS, KINDS, Flag
from ..models.config import Further
from ..sources import IoMode


@dataclass(frozen=True)
class Options:
    """Everything a conversion can be told; ``streamconv.flags`` has the command line's option for each.

    Attributes
    ----------
    measure : decode what was encoded and add up the error, as for a report
    own : what a target's own options are set to, by ``Flag.field``
    """

    type: str = "auto"
    ram_bytes: int | None = None
    threads: int | None = None
    force: bool = False
    update: bool = False
    reuse: tuple[Path, ...] = ()
    no_reuse: bool = False
    manifest: bool = False
    stop_after_s: float | None = None
    verify: str = "all"
    imatrix: tuple[Path, ...] = ()
    include_weights: tuple[str, ...] = ()
    exclude_weights: tuple[str, ...] = ()
    pure: bool = False
    leave_output_tensor: bool = False
    output_tensor_type: str | None = None
    token_embedding_type: str | None = None
    tensor_types: tuple[str, ...] = ()
    tensor_type_file: Path | None = None
    copy: bool = False
    prune_layers: tuple[int, ...] = ()
    override_kv: tuple[str, ...] = ()
    allow_requantize: bool = False
    split_max_bytes: int = 0
    split_max_tensors: int = 0
    no_tensor_first_split: bool = False
    keep_split: bool = False
    max_shard_bytes: int | None = None
    pre: str | None = None
    vocab_only: bool = False
    mmproj: bool = False
    mmproj_type: str | None = None
    mistral_format: bool = False
    mtp: bool = False
    no_mtp: bool = False
    dspark: bool = False
    target_model: str | None = None
    base: str | None = None
    lora: tuple[str, ...] = ()
    model_name: str | None = None
    metadata: Path | None = None
    fuse_qkv: bool = False
    fuse_gate_up_exps: bool = False
    fp8_as_q8: bool = False
    dense_modules: bool = False
    allow_nonfinite: bool = False
    measure: bool = False
    compat: bool = False
    seed: int = 0
    lenient: bool = False
    allow_crimes: bool = False
    io: IoMode = "mmap"
    chunk_bytes: int = CHUNK_BYTES
    evict: bool = False
    keep_packed: bool = False
    offline: bool = False
    refresh: bool = False
    report: Path | None = None
    cluster: str | None = None
    cluster_tls: str | None = None
    own: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Options:
        """The options that are ``told`` by name; a name of no field is that of a target's own."""
        usual = {f.name: f.default for f in fields(cls)}
        return cls(
            **{name: _fitting(name, value, usual[name]) for name, value in told.items() if name in usual},
            own={name: value for name, value in told.items() if name not in usual},
        )

    @property
    def ram(self) -> int:
        """Bytes of memory that the job may allocate."""
        return default_ram() if self.ram_bytes is None else self.ram_bytes

    @property
    def types(self) -> tuple[str, ...]:
        """The file types asked for, each once.

        Raises
        ------
        UsageError : an empty name
        """
        if self.copy:
            return ("COPY",)
        names = tuple(dict.fromkeys(name.strip().upper() for name in self.type.split(",")))
        if not all(names):
            raise UsageError(f"--type {self.type!r} is not a file type", "For example --type Q4_K_M,Q8_0.")
        return tuple("auto" if name == "AUTO" else name for name in names)

    @property
    def further(self) -> Further:
        """What is written of blocks that predict further tokens."""
        return "only" if self.mtp else "left out" if self.no_mtp else "kept"

    def given(self) -> list[Flag]:
        """The options of the command line that stand for what is not as by default, each field's first."""
        usual = {f.name: f.default for f in fields(self)}
        flags = {flag.field: flag for flag in reversed(FLAGS) if flag.field}
        return [flags[name] for name in usual if name in flags and getattr(self, name) != usual[name]]

    def value(self, flag: Flag) -> Any:
        """What ``flag``, a target's own, is set to."""
        return self.own.get(flag.field, flag.default)


_KINDS = {flag.field: flag.kind for flag in FLAGS}


def _fitting(name: str, value: Any, usual: Any) -> Any:
    """``value`` in the way that option ``name`` has it, whose default is ``usual``.

    Raises
    ------
    UsageError : a text that is no size or duration
    """
    kind = _KINDS.get(name, "")
    if isinstance(usual, tuple):
        several = [value] if isinstance(value, (str, os.PathLike)) else value
        return tuple(map(Path, several) if kind == "path" else several)
    if kind == "path" and value is not None:
        return Path(value)
    if kind in ("size", "seconds") and isinstance(value, str):
        try:
            return KINDS[kind](value)
        except ArgumentTypeError as e:
            raise UsageError(f"{name}: {e}") from None
    return bool(value) if isinstance(usual, bool) else value


_DESCRIBED = {flag.field: f"    {flag.field} : {flag.help}" for flag in reversed(FLAGS) if flag.field}
Options.__doc__ = "\n".join([(Options.__doc__ or "").rstrip(), *reversed(_DESCRIBED.values()), ""])
