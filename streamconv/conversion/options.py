"""What a conversion can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..engine.plan import CHUNK_BYTES
from ..errors import UsageError
from ..sources import IoMode
from ..targets import safetensors


@dataclass(frozen=True)
class Options:
    """Everything a conversion can be told; the command line's flags by the same names.

    Attributes
    ----------
    type : file type, or ``auto``; several with commas between them
    ram_bytes, threads : budget; None = chosen from the machine. They never change the output.
    force : replace an output or an unfinished job of another plan
    update : the same where it was not made by this very plan
    stop_after_s : stop at a chunk boundary after so many seconds
    verify : finished chunks read back before a resumed run trusts them: all, recent, none
    imatrix : importance matrix files; include/exclude filter their entries
    tensor_types : ``REGEX=TYPE``
    split_max_bytes, split_max_tensors : limits of a GGUF shard, 0 = one file
    keep_split : cut the output where the GGUF input is cut
    max_shard_bytes : limit of a safetensors shard
    pre : BPE pre-tokenizer name, overriding detection
    mmproj : write the vision projector instead of the text model
    allow_nonfinite : convert NaN and Inf instead of refusing them
    measure : decode what was encoded and add up the error
    compat : reproduce defects of ggml
    seed, lenient, allow_crimes : of a merge recipe: seed of random methods; unknown keys are warnings; models of different
        architectures may be merged
    io : how inputs are read, ``mmap`` or ``pread``
    chunk_bytes : most output bytes of a chunk
    evict : give the space of fetched bytes back as soon as what was made of them is durable
    offline : never ask the network
    refresh : ask the hub where a branch is now, instead of remembering what it was first
    report : a file for type, hash and error of every tensor
    reads : further files that the command reads, which nothing may be written over
    """

    type: str = "auto"
    ram_bytes: int | None = None
    threads: int | None = None
    force: bool = False
    update: bool = False
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
    prune_layers: tuple[int, ...] = ()
    override_kv: tuple[str, ...] = ()
    allow_requantize: bool = False
    split_max_bytes: int = 0
    split_max_tensors: int = 0
    keep_split: bool = False
    max_shard_bytes: int = safetensors.MAX_SHARD_BYTES
    pre: str | None = None
    vocab_only: bool = False
    mmproj: bool = False
    model_name: str | None = None
    allow_nonfinite: bool = False
    measure: bool = False
    compat: bool = False
    seed: int = 0
    lenient: bool = False
    allow_crimes: bool = False
    io: IoMode = "mmap"
    chunk_bytes: int = CHUNK_BYTES
    evict: bool = False
    offline: bool = False
    refresh: bool = False
    report: Path | None = None
    reads: tuple[Path, ...] = ()

    @property
    def types(self) -> tuple[str, ...]:
        """The file types asked for, each once.

        Raises
        ------
        UsageError : an empty name
        """
        names = tuple(dict.fromkeys(name.strip().upper() for name in self.type.split(",")))
        if not all(names):
            raise UsageError(f"--type {self.type!r} names no file type", "For example --type Q4_K_M,Q8_0.")
        return tuple("auto" if name == "AUTO" else name for name in names)
