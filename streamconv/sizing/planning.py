"""A mix before anything is measured: what is asked for, what there is to choose from, the text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import forward
from ..conversion import Opener, Options, open_runnable
from ..conversion.hub_models import HubModels
from ..engine.plan import fingerprint
from ..errors import UsageError
from ..evaluation.request import Request, chunks_of, refuse_idle
from ..evaluation.walk import require_ram
from ..forward.chunks import Chunks
from ..sources.checkpoint import Checkpoint
from ..units import size
from .pool import Pool, candidates, open_pool, reference_for

#: tokens that divergences are measured on, and those of them on which every matrix is quantized alone; of chunks their beginnings
#: up to so many tokens: a few chunks of different parts of the text tell more than a long one
_TOKENS, _TRIAL_TOKENS, _BEGINNING = 1024, 256, 128
#: the same for a thorough measurement, of whole chunks
_THOROUGH_TOKENS, _THOROUGH_TRIAL_TOKENS = 4096, 1024
#: chunks of the others that both mixes are compared on: at first, and at most
_FIRST_CHUNKS, _MOST_CHUNKS = 6, 20
#: raised whenever the same inputs give another list
_SCHEME = 3


@dataclass(frozen=True)
class MixRequest:
    """What was asked for.

    Attributes
    ----------
    n_bytes, bpw : the size of the file, or bits a weight; one of them is None
    types : ``--types``, or None for the usual ones
    check : compare with the best standard mix
    text : what is measured on
    thorough : measure more, and each third of the layers by itself
    same_types : the same type for matrices that runtimes fuse
    """

    n_bytes: int | None
    bpw: float | None
    types: str | None = None
    check: bool = True
    text: Request = field(default_factory=lambda: Request(None))
    thorough: bool = False
    same_types: bool = False

    def __post_init__(self) -> None:
        if (self.n_bytes is None) == (self.bpw is None):
            raise UsageError("mix: give either --size or --bpw", "For example --size 4.2GiB, or --bpw 4.5.")
        if self.bpw is not None and not 0 < self.bpw < 64:
            raise UsageError(f"--bpw {self.bpw:g} is no number of bits for a weight", "For example --bpw 4.5.")


@dataclass(frozen=True)
class PlannedMix:
    """A mix before anything is measured; ``budget`` are bytes for the matrices of ``pool``.

    Attributes
    ----------
    measured, n_trial : the text to measure on, and the first chunks of it on which each matrix is quantized alone
    checked : the text to compare on, in parts of which the later ones may not be needed
    inputs : digest of all that decides the list
    """

    source: str
    output: Path
    request: MixRequest
    pool: Pool
    target: int
    model: forward.Model
    checkpoint: Checkpoint
    roots: Sequence[Path]
    hub: HubModels
    measured: Chunks
    n_trial: int
    checked: Sequence[Chunks]
    inputs: str

    @property
    def notes(self) -> list[str]:
        """What a user should know before."""
        found = []
        if self.request.text.text is None:
            found.append(f"measuring on {self.request.text.text_name}; give --text for your own domain")
        if all(m.weights is None for m in self.pool.matrices):
            found.append("without an importance matrix all columns count the same; give --imatrix for a better mix")
        return found

    @property
    def budget(self) -> int:
        """Bytes that the matrices may take."""
        return self.target - self.pool.others_bytes

    @property
    def bits_per_open_weight(self) -> float:
        """Bits that the budget has for each weight of those matrices whose type is open."""
        given = sum(m.n_bytes(next(iter(m.types))) for m in self.pool.matrices if m.given)
        return 8 * (self.budget - given) / sum(m.n_params for m in self.pool.matrices if not m.given)

    @property
    def reference(self) -> str:
        """The type that sensitivities are measured with."""
        return reference_for(self.bits_per_open_weight)

    def close(self) -> None:
        """Let go of what is fetched."""
        self.hub.close()


def prepare_mix(source: str, output: Path, request: MixRequest, options: Options) -> PlannedMix:
    """Plan: reads headers, configuration, tokenizer, the text and the importance matrix's directory; writes nothing.

    Parameters
    ----------
    output : the file that will be converted, or a name in its place

    Raises
    ------
    UsageError : the size cannot be met, or an option does not fit
    StreamconvError : and see ``conversion.prepare`` and ``evaluation.compare``
    """
    _refuse_options(options, output)
    types = candidates(request.types, bool(options.imatrix))
    pool = open_pool(source, output, types, request.types is not None, options)
    target = request.n_bytes
    if target is None:
        assert request.bpw is not None
        target = pool.others_bytes - pool.others_data + int(request.bpw * pool.n_params / 8)
    _refuse_size(pool, target)
    hub = HubModels(output.parent, offline=options.offline, refresh=options.refresh)
    try:
        opener = Opener(options, hub)
        model, checkpoint = open_runnable(source, options, opener)
        refuse_idle(options, [checkpoint])
        require_ram(model, request.text.n_ctx, options.ram)
        _, text = request.text.read_text()
        chunks = chunks_of(model, source, text, request.text)
        measured, checked = _halves(chunks, request.thorough)
        facts = [
            _SCHEME,
            pool.fingerprint,
            target,
            [t.name for t in types],
            request.check,
            request.thorough,
            request.same_types,
            chunks.inputs.shape,
            hashlib.sha256(chunks.inputs.tobytes()).hexdigest(),
        ]
        return PlannedMix(
            source, output, request, pool, target, model, checkpoint, opener.roots, hub, measured,
            _n_trial(measured, request.thorough), checked, fingerprint(facts).hex(),
        )  # fmt: skip
    except BaseException:
        hub.close()
        raise


def _refuse_options(options: Options, output: Path) -> None:
    """UsageError for what makes no sense with a size."""
    wrong = {
        "several types in --type": len(options.types) > 1, "--copy": options.copy, "--pure": options.pure,
        "--vocab-only": options.vocab_only, "--mmproj": options.mmproj, "--prune-layers": bool(options.prune_layers),
        "--lora": bool(options.lora), "--base": options.base is not None, "--mtp": options.mtp,
        "--dspark": options.dspark,
        "--split-max-…": bool(options.split_max_bytes or options.split_max_tensors), "--keep-split": options.keep_split,
        "{part} in OUT": "{part}" in output.name,
    }  # fmt: skip
    for name, given in wrong.items():
        if given:
            raise UsageError(
                f"a mix for a size is one GGUF file of a whole model: it cannot be made with {name}", "Leave that out."
            )
    if output.suffix != ".gguf":
        raise UsageError(f"{output}: only GGUF files have a mix of types for a size", "Name the output something.gguf.")


def _smallest(pool: Pool) -> dict[str, str]:
    return {m.name: min(m.types.values(), key=m.n_bytes) for m in pool.matrices}


def _refuse_size(pool: Pool, target: int) -> None:
    """UsageError for a size that no choice comes near."""
    least = pool.size_of(_smallest(pool))
    most = pool.size_of({m.name: max(m.types.values(), key=m.n_bytes) for m in pool.matrices})
    if target < least:
        raise UsageError(
            f"{size(target)} ({target:,} bytes) is too small: with the smallest types the file has {least:,} bytes",
            f"Use --size {least} or more, or allow smaller types with --types.",
        )
    if target > most:
        raise UsageError(
            f"{size(target)} ({target:,} bytes) is more than the largest types take: {most:,} bytes",
            f"Use --size {most} or less, or allow larger types with --types.",
        )


def _halves(chunks: Chunks, thorough: bool) -> tuple[Chunks, list[Chunks]]:
    """Chunks to measure on, of the even ones, and to compare on, of the odd ones: both see all kinds of text in it."""
    n, n_ctx = chunks.inputs.shape
    if n < 2:
        raise UsageError(
            "a mix needs two chunks of text at least: one to measure on, another to compare on",
            "Give --chunks 2 or more, or a smaller --ctx-size.",
        )
    length = n_ctx if thorough else min(n_ctx, _BEGINNING)
    even = _spread_over(range(0, n, 2), max(2, (_THOROUGH_TOKENS if thorough else _TOKENS) // length))
    trial = _spread_over(even, max(2, (_THOROUGH_TRIAL_TOKENS if thorough else _TRIAL_TOKENS) // length))
    odd = _spread_over(range(1, n, 2), _MOST_CHUNKS)
    first = _spread_over(odd, _FIRST_CHUNKS)
    others = [number for number in odd if number not in first]
    return (
        _beginnings(_some(chunks, [*trial, *(number for number in even if number not in trial)]), length),
        [_some(chunks, numbers) for numbers in (first, others) if numbers],
    )


def _n_trial(measured: Chunks, thorough: bool) -> int:
    """Chunks, the first of those that are measured on, on which every matrix is quantized alone."""
    n, n_ctx = map(int, measured.inputs.shape)
    return min(n, max(2, (_THOROUGH_TRIAL_TOKENS if thorough else _TRIAL_TOKENS) // n_ctx))


def _beginnings(chunks: Chunks, n_ctx: int) -> Chunks:
    """The first ``n_ctx`` tokens of each of ``chunks``, which are as if they had been cut so short."""
    if n_ctx == chunks.inputs.shape[1]:
        return chunks
    return Chunks(chunks.inputs[:, :n_ctx].copy(), chunks.inputs[:, n_ctx // 2 + 1 : n_ctx].copy())


def _spread_over(numbers: Sequence[int], most: int) -> list[int]:
    """``most`` of ``numbers``, at least one, from all parts."""
    count = max(1, min(most, len(numbers)))
    return [numbers[k * len(numbers) // count] for k in range(count)]


def _some(chunks: Chunks, numbers: Sequence[int]) -> Chunks:
    return Chunks(chunks.inputs[numbers].copy(), chunks.targets[numbers].copy())
