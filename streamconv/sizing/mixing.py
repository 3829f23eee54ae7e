"""From a size to a list of types: plan, measure, solve, compare with the best standard mix, keep the better one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import forward
from ..conversion import Opener, Options, open_runnable, rules_of
from ..conversion.hub_models import HubModels
from ..engine import run as runs
from ..engine.budget import default_threads
from ..engine.plan import fingerprint
from ..errors import UsageError
from ..evaluation.comparing import run_models
from ..evaluation.request import Request, chunks_of, refuse_idle
from ..evaluation.walk import require_ram
from ..forward.chunks import Chunks
from ..forward.divergence import Doubles, Estimate, mean
from ..limits import one_thread_of_blas
from ..quant.types import TYPES
from ..sources.checkpoint import Checkpoint
from ..threads import spread
from ..units import size
from .curves import Loss, losses
from .pool import Matrix, Pool, Standard, bits, candidates, open_pool, planned, rule
from .sensitivity import Pass, quantized, with_rows
from .solver import Option, solve
from .state import Kept

#: tokens that divergences are measured on, and those of them on which every matrix is quantized alone, at least two chunks
_MEASURED_TOKENS, _TRIAL_TOKENS = 4096, 1024
#: chunks of the others that both mixes are compared on, at most
_CHECKED_CHUNKS = 20
#: below so many bits errors add up to more than their sum: bits of a type -> factor
_MORE_THAN_SUMS = ((1.75, 1.8), (2.2, 1.3), (2.6, 1.1), (3.0, 1.0))
#: bits of a type below which it is taken only where nothing else fits
_LEAST_BITS = 2.5
#: from so many bits a weight on, head and embeddings have this type at least
_GOOD_BITS, _OF_ENDS = 3.0, "Q4_K"
_ENDS = ("token_embd.weight", "output.weight")
#: of how many of the most sensitive tensors a type is refused that is this many bits below those for a little less and more
_STEADY, _STEADY_BITS, _NEARBY = 20, 0.5, 0.03
#: raised whenever the same inputs give another list
_SCHEME = 1


@dataclass(frozen=True)
class MixRequest:
    """What was asked for.

    Attributes
    ----------
    n_bytes, bpw : the size of the file, or bits a weight; one of them is None
    types : ``--types``, or None for the usual ones
    check : compare with the best standard mix
    text : what is measured on
    """

    n_bytes: int | None
    bpw: float | None
    types: str | None = None
    check: bool = True
    text: Request = Request(None)

    def __post_init__(self) -> None:
        if (self.n_bytes is None) == (self.bpw is None):
            raise UsageError("mix: give either --size or --bpw", "For example --size 4.2GiB, or --bpw 4.5.")
        if self.bpw is not None and not 0 < self.bpw < 64:
            raise UsageError(f"--bpw {self.bpw:g} is no number of bits for a weight", "For example --bpw 4.5.")


@dataclass(frozen=True)
class MixTensor:
    """What was chosen for one matrix.

    Attributes
    ----------
    standard_type : its type in the standard mix; empty where there is none
    reason : why, in a few words
    error, worst_row : relative weighted squared error of the type, and that of the row that loses most
    sensitivity : KL divergence in nats for each unit of relative error; None where it was not measured
    cost : predicted KL divergence of this tensor alone
    """

    name: str
    shape: tuple[int, ...]
    n_bytes: int
    type: str
    standard_type: str
    reason: str
    error: float
    worst_row: float
    sensitivity: float | None
    cost: float


@dataclass(frozen=True)
class MixSide:
    """One of the two mixes that were compared: bytes of the file, KL divergence as predicted and as measured (None: it was not)."""

    name: str
    n_bytes: int
    predicted_kl: float
    measured_kl: Estimate | None = None


@dataclass(frozen=True)
class Mix:
    """The result.

    Attributes
    ----------
    target : bytes that were asked for
    type : file type to convert with; decides nothing of the tensors that are listed
    tensors : in the order of the file
    own : the mix made from errors; ``standard``: the best standard one that fits, if one does
    difference : mean of own - standard over positions of the held-out text; None where it was not measured
    standard_kept : whether ``tensors`` are those of the standard mix, as it is not worse
    reference_type : the type that sensitivities were measured with
    n_measured, n_checked : tokens
    """

    source: str
    target: int
    n_bytes: int
    bits_per_weight: float
    type: str
    tensors: Sequence[MixTensor]
    own: MixSide
    standard: MixSide | None
    difference: Estimate | None
    standard_kept: bool
    reference_type: str
    n_measured: int
    n_checked: int

    @property
    def chosen(self) -> MixSide:
        """The side that ``tensors`` are of."""
        assert self.standard is not None or not self.standard_kept
        return self.standard if self.standard_kept and self.standard is not None else self.own


@dataclass(frozen=True)
class PlannedMix:
    """A mix before anything is measured; ``budget`` are bytes for the matrices of ``pool``."""

    source: str
    output: Path
    request: MixRequest
    pool: Pool
    target: int
    model: forward.Model
    checkpoint: Checkpoint
    hub: HubModels
    measured: Chunks
    checked: Chunks
    inputs: str

    @property
    def budget(self) -> int:
        """Bytes that the matrices may take."""
        return self.target - self.pool.others_bytes

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
        model, checkpoint = open_runnable(source, options, Opener(options, hub))
        refuse_idle(options, [checkpoint])
        require_ram(model, request.text.n_ctx, options.ram)
        _, text = request.text.read_text()
        chunks = chunks_of(model, source, text, request.text)
        measured, checked = _halves(chunks)
        facts = [_SCHEME, pool.fingerprint, target, [t.name for t in types], request.check, hashlib.sha256(chunks.inputs).hexdigest()]
        return PlannedMix(
            source, output, request, pool, target, model, checkpoint, hub, measured, checked, fingerprint(facts).hex()[:32]
        )
    except BaseException:
        hub.close()
        raise


def _refuse_options(options: Options, output: Path) -> None:
    """UsageError for what makes no sense with a size."""
    wrong = {
        "several --types": len(options.types) > 1, "--copy": options.copy, "--pure": options.pure,
        "--vocab-only": options.vocab_only, "--mmproj": options.mmproj, "--prune-layers": bool(options.prune_layers),
        "--lora": bool(options.lora), "--base": options.base is not None, "--mtp": options.mtp,
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
    return {m.name: min(m.types.values(), key=lambda t: (m.n_bytes(t), t)) for m in pool.matrices}


def _refuse_size(pool: Pool, target: int) -> None:
    """UsageError for a size that no choice comes near."""
    least = pool.size_of(_smallest(pool))
    most = pool.size_of({m.name: max(m.types.values(), key=lambda t, m=m: (m.n_bytes(t), t)) for m in pool.matrices})
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


def _halves(chunks: Chunks) -> tuple[Chunks, Chunks]:
    """Chunks to measure on, of the even ones, and to compare on, of the odd ones: both see all kinds of text in it."""
    n, n_ctx = chunks.inputs.shape
    even = _spread_over(range(0, n, 2), _MEASURED_TOKENS // n_ctx)
    trial = _spread_over(even, n_trial_chunks(n_ctx))
    return (
        _some(chunks, [*trial, *(number for number in even if number not in trial)]),
        _some(chunks, _spread_over(range(1, n, 2), _CHECKED_CHUNKS)),
    )


def n_trial_chunks(n_ctx: int) -> int:
    """Chunks, the first of those that are measured on, on which every matrix is quantized alone."""
    return max(2, _TRIAL_TOKENS // n_ctx)


def _spread_over(numbers: Sequence[int], most: int) -> list[int]:
    """``most`` of ``numbers``, at least one, from all parts."""
    count = max(1, min(most, len(numbers)))
    return [numbers[k * len(numbers) // count] for k in range(count)]


def _some(chunks: Chunks, numbers: Sequence[int]) -> Chunks:
    return Chunks(chunks.inputs[numbers].copy(), chunks.targets[numbers].copy())


# -- measuring ---------------------------------------------------------------------------------------------------------


def make_mix(plan: PlannedMix, state: Path, options: Options, reporter: runs.Reporter) -> Mix:
    """Measure and choose.

    Parameters
    ----------
    state : file that keeps what was measured until all of it is; the next run goes on from there

    Raises
    ------
    Stopped, Interrupted : what was measured is kept
    StreamconvError : whatever the inputs raise
    """
    if plan.hub.models:
        plan.hub.notes.listen(lambda note: reporter.message(f"note: {note}"))
        plan.hub.download(plan.hub.weights)
    kept = Kept(state, plan.inputs)
    curves = _curves(plan, kept, options, reporter)
    reference = _reference_type(plan)
    run = [m for m in plan.pool.matrices if m.name in plan.model.rows]
    reporter.message(f"measuring {len(run)} matrices on {plan.measured.inputs.size:,} tokens")
    found = Pass(
        plan.model, run, reference, plan.measured, n_trial_chunks(plan.request.text.n_ctx), options, reporter, kept.delta,
        kept.keep_delta,
    ).run()  # fmt: skip
    sensitivities = _sensitivities(plan.pool.matrices, found.cost, curves, reference)
    choice = _Choice(plan, curves, sensitivities)
    own = choice.solved()
    standard = choice.best_standard()
    mix = _judged(plan, choice, own, standard, found.type, options, reporter)
    plan.checkpoint.verify_unchanged()
    _require_planned(plan, mix, options)
    return mix


def _curves(plan: PlannedMix, kept: Kept, options: Options, reporter: runs.Reporter) -> dict[str, dict[str, Loss]]:
    """What each type that a matrix may have, here or in a standard mix, loses of it."""
    found: dict[str, dict[str, Loss]] = {}
    reporter.message(f"quantizing samples of {len(plan.pool.matrices)} matrices")

    def one(matrix: Matrix) -> None:
        wanted = {*matrix.types.values(), *(s.types[matrix.name] for s in plan.pool.standards)}
        known = kept.losses.get(matrix.name, {})
        missing = sorted(wanted - known.keys())
        new = losses(matrix.rows, missing, matrix.weights, matrix.visits, options.compat) if missing else {}
        found[matrix.name] = {**known, **new}

    with one_thread_of_blas():
        spread(one, list(plan.pool.matrices), options.threads or default_threads())
    kept.keep_losses(found)
    return found


def _reference_type(plan: PlannedMix) -> str:
    """The candidate with the most bits that the budget has for a weight; the smallest where there is none."""
    n_params = sum(m.n_params for m in plan.pool.matrices)
    names = sorted({name for m in plan.pool.matrices if not m.given for name in m.types}, key=lambda n: (bits(n), n))
    return [names[0], *(n for n in names if bits(n) <= 8 * plan.budget / n_params)][-1]


_NUMBER = re.compile(r"\d+")


def _sensitivities(
    matrices: Sequence[Matrix], cost: Mapping[str, float], curves: Mapping[str, Mapping[str, Loss]], kind: str
) -> dict[str, float | None]:
    """KL divergence for each unit of relative error; what was not measured, or shows none, has that of its nearest like."""
    direct: dict[str, float] = {}
    for m in matrices:
        error = curves[m.name][m.types.get(kind, next(iter(m.types.values())))].error
        if cost.get(m.name, 0.0) > 0 and error > 0:
            direct[m.name] = cost[m.name] / error
    found: dict[str, float | None] = {}
    for m in matrices:
        like = [(abs(_block(name) - _block(m.name)), name) for name in direct if _kind(name) == _kind(m.name)]
        found[m.name] = direct.get(m.name) or (direct[min(like)[1]] if like else None)
    return found


def _block(name: str) -> int:
    found = _NUMBER.search(name)
    return int(found[0]) if found else -1


def _kind(name: str) -> str:
    return _NUMBER.sub("N", name, count=1)


def _factor(type_name: str) -> float:
    """By how much errors of such a type add up to more than their sum."""
    xs, ys = zip(*_MORE_THAN_SUMS, strict=True)
    return float(np.interp(bits(type_name), xs, ys))


class _Choice:
    """What can be chosen, and at what cost."""

    def __init__(
        self, plan: PlannedMix, curves: Mapping[str, Mapping[str, Loss]], sensitivities: Mapping[str, float | None]
    ) -> None:
        self.plan, self.curves, self.sensitivities = plan, curves, sensitivities

    def cost(self, name: str, type_name: str) -> float:
        """Predicted KL divergence of one matrix in a type; 0 where nothing is known of it."""
        return (self.sensitivities[name] or 0.0) * self.curves[name][type_name].error * _factor(type_name)

    def predicted(self, types: Mapping[str, str]) -> float:
        """Of all together."""
        return float(sum(self.cost(m.name, types[m.name]) for m in self.plan.pool.matrices))

    def best_standard(self) -> Standard | None:
        """The standard mix that is not larger and costs least."""
        fitting = [s for s in self.plan.pool.standards if s.n_bytes <= self.plan.target]
        return min(fitting, key=lambda s: (self.predicted(s.types), -s.n_bytes), default=None)

    def solved(self) -> dict[str, str]:
        """The types that cost least."""
        budget = self.plan.budget
        for least in (_LEAST_BITS, 0.0):
            pools = [self._options(m, least) for m in self.plan.pool.matrices]
            found = solve(pools, budget)
            if found is not None:
                found = self._steady(pools, budget, found)
                return {m.name: o.type for m, o in zip(self.plan.pool.matrices, found, strict=True)}
        pools = [self._options(m, 0.0, guarded=False) for m in self.plan.pool.matrices]
        found = solve(pools, budget)
        assert found is not None  # sizes that are too small were refused
        return {m.name: o.type for m, o in zip(self.plan.pool.matrices, found, strict=True)}

    def _options(self, m: Matrix, least: float, guarded: bool = True) -> list[Option]:
        """What a matrix may become, without what is known to do harm."""
        names = sorted({*m.types.values()}, key=lambda name: (bits(name), name))
        standard = self.best_standard()
        if not m.given and self.sensitivities[m.name] is None and guarded and standard is not None:
            return [Option(standard.types[m.name], m.n_bytes(standard.types[m.name]), 0.0)]
        if m.name in _ENDS and guarded and not m.given and self._bits_a_weight() >= _GOOD_BITS:
            least = max(least, bits(_OF_ENDS))
        allowed = [name for name in names if bits(name) >= least] or names[-1:]
        return [Option(name, m.n_bytes(name), self.cost(m.name, name)) for name in allowed]

    def _bits_a_weight(self) -> float:
        return 8 * self.plan.budget / sum(m.n_params for m in self.plan.pool.matrices)

    def _steady(self, pools: list[list[Option]], budget: int, found: list[Option]) -> list[Option]:
        """``found``, unless a sensitive tensor gets much less than it would for a smaller and for a larger file."""
        near = [solve(pools, int(budget * (1 + sign * _NEARBY))) for sign in (-1, 1)]
        if near[0] is None or near[1] is None:
            return found
        most = sorted(range(len(pools)), key=lambda n: (-max(o.cost for o in pools[n]), n))[:_STEADY]
        changed = list(pools)
        for n in most:
            least = min(bits(near[0][n].type), bits(near[1][n].type))
            if bits(found[n].type) <= least - _STEADY_BITS:
                changed[n] = [o for o in pools[n] if bits(o.type) >= bits(near[0][n].type)]
        return found if changed == pools else solve(changed, budget) or found


# -- judging -----------------------------------------------------------------------------------------------------------


def _judged(
    plan: PlannedMix,
    choice: _Choice,
    own: Mapping[str, str],
    standard: Standard | None,
    reference_type: str,
    options: Options,
    reporter: runs.Reporter,
) -> Mix:
    """Both mixes on the text that was held out, and the better one."""
    sides = [MixSide("measured", plan.pool.size_of(own), choice.predicted(own))]
    if standard is not None:
        sides.append(MixSide(standard.name, standard.n_bytes, choice.predicted(standard.types)))
    difference = None
    if plan.request.check:
        reporter.message(f"comparing on {plan.checked.inputs.size:,} other tokens")
        chosen = [own] if standard is None else [own, {m.name: standard.types[m.name] for m in plan.pool.matrices}]
        klds = _divergences(plan, chosen, options, reporter)
        sides = [replace(side, measured_kl=mean(kld)) for side, kld in zip(sides, klds, strict=True)]
        difference = mean(klds[0] - klds[1]) if standard is not None else None
    is_same = standard is not None and all(standard.types[name] == kind for name, kind in own.items())
    kept = is_same or (difference is not None and difference.value + 2 * difference.uncertainty > 0)
    types = standard.types if kept and standard is not None else own
    kind = standard.name if standard is not None else _near_type(plan)
    return Mix(
        plan.source, plan.target, standard.n_bytes if kept and standard is not None else sides[0].n_bytes, plan.pool.bits_per_weight(types),
        kind if options.type == "auto" else options.type,
        [_tensor(choice, m, types[m.name], standard, kept) for m in plan.pool.matrices],
        sides[0], sides[1] if standard is not None else None, difference, kept, reference_type,
        plan.measured.inputs.size, plan.checked.inputs.size if plan.request.check else 0,
    )  # fmt: skip


def _divergences(
    plan: PlannedMix, mixes: Sequence[Mapping[str, str]], options: Options, reporter: runs.Reporter
) -> list[Doubles]:
    models = [plan.model]
    for types in mixes:
        changed = {
            m.name: quantized(m, types[m.name], options.compat)
            for m in plan.pool.matrices
            if m.name in plan.model.rows
        }
        models.append(with_rows(plan.model, changed))
    return [each.kld for each in run_models(models, plan.checked, options, reporter).divergences]


def _near_type(plan: PlannedMix) -> str:
    """A file type that the mix may call itself where no standard one is that small."""
    return plan.pool.standards[0].name if plan.pool.standards else "Q4_K_M"


def _tensor(choice: _Choice, m: Matrix, type_name: str, standard: Standard | None, kept: bool) -> MixTensor:
    usual = standard.types[m.name] if standard is not None else ""
    loss = choice.curves[m.name][type_name]
    cost = choice.cost(m.name, type_name)
    return MixTensor(
        m.name, m.rows.shape, m.n_bytes(type_name), type_name, usual, _reason(choice, m, type_name, standard, kept),
        loss.error, loss.worst_row, choice.sensitivities[m.name], cost,
    )  # fmt: skip


def _reason(choice: _Choice, m: Matrix, type_name: str, standard: Standard | None, kept: bool) -> str:
    if m.given:
        return f"given: {m.given}"
    if kept and standard is not None:
        return f"as in {standard.name}, which is kept"
    cost = choice.cost(m.name, type_name)
    if standard is None:
        return f"costs {cost:.2g} nats"
    usual = standard.types[m.name]
    if choice.sensitivities[m.name] is None:
        return f"not measured: as in {standard.name}"
    if usual == type_name:
        return f"as in {standard.name}; costs {cost:.2g} nats"
    more, saved = m.n_bytes(type_name) - m.n_bytes(usual), choice.cost(m.name, usual) - cost
    if more > 0:
        return f"{usual} in {standard.name}; {more:,} bytes more save {saved:.2g} nats"
    return f"{usual} in {standard.name}; {-more:,} bytes less cost {-saved:.2g} nats"


def rules(mix: Mix) -> tuple[str, ...]:
    """A rule for every tensor of ``mix``."""
    return tuple(rule(t.name, t.type) for t in mix.tensors)


def _require_planned(plan: PlannedMix, mix: Mix, options: Options) -> None:
    """Plan the conversion with the list: sizes and types must be those that were reckoned with."""
    given = replace(options, type=mix.type, tensor_types=(*rules_of(options), *rules(mix)), tensor_type_file=None)
    prepared = planned(plan.source, plan.output, given)
    now = {t.name: t.encoding.type.name for t in prepared.outputs[0].tensors}
    wrong = [t.name for t in mix.tensors if now[t.name] != t.type]
    if wrong or prepared.plan.total_bytes != mix.n_bytes:
        raise AssertionError(
            f"{wrong or 'the file'}: planned otherwise than reckoned: {prepared.plan.total_bytes} bytes, not {mix.n_bytes}"
        )


def as_json(mix: Mix) -> dict[str, Any]:
    """``mix`` as JSON has it."""

    def side(found: MixSide | None) -> dict[str, Any] | None:
        if found is None:
            return None
        kl = found.measured_kl
        return {
            "name": found.name, "bytes": found.n_bytes, "predicted_kl": found.predicted_kl,
            "measured_kl": None if kl is None else kl.value, "measured_kl_uncertainty": None if kl is None else kl.uncertainty,
        }  # fmt: skip

    difference = mix.difference
    return {
        "source": mix.source, "target": mix.target, "bytes": mix.n_bytes, "bits_per_weight": mix.bits_per_weight,
        "type": mix.type,
        "standard_kept": mix.standard_kept, "mix": side(mix.own), "standard": side(mix.standard),
        "difference": None if difference is None else difference.value,
        "difference_uncertainty": None if difference is None else difference.uncertainty,
        "reference_type": mix.reference_type, "tokens_measured": mix.n_measured, "tokens_compared": mix.n_checked,
        "tensors": [
            {
                "name": t.name, "shape": list(t.shape), "bytes": t.n_bytes, "type": t.type,
                "bits": bits(t.type), "standard_type": t.standard_type, "reason": t.reason, "error": t.error,
                "worst_row_error": t.worst_row, "sensitivity": t.sensitivity, "cost": t.cost,
            }
            for t in mix.tensors
        ],
    }  # fmt: skip
