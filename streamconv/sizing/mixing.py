"""From a size to a list of types: measure, solve, compare with the best standard mix, keep the better one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..conversion import Options, rules_of
from ..engine import run as runs
from ..engine.budget import default_threads
from ..errors import Interrupted
from ..evaluation.comparing import run_models
from ..forward.divergence import Doubles, mean
from ..limits import one_thread_of_blas
from ..threads import spread
from .choosing import Choice, sensitivities
from .curves import Loss, losses
from .planning import PlannedMix, n_trial_chunks
from .pool import Matrix, Standard, bits, planned, rule
from .result import Mix, MixSide, MixTensor
from .sensitivity import Pass, quantized, with_rows
from .state import Kept


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
    if not kept.cost:
        run = [m for m in plan.pool.matrices if m.name in plan.model.rows]
        reporter.message(f"measuring {len(run)} matrices on {plan.measured.inputs.size:,} tokens")
        n_trial = n_trial_chunks(plan.request.text.n_ctx)
        one = Pass(plan.model, run, reference, plan.measured, n_trial, options, reporter, kept.delta, kept.keep_delta)
        kept.keep_cost(one.run())
    choice = Choice(plan, curves, sensitivities(plan.pool.matrices, kept.cost, curves, reference))
    own = choice.solved()
    standard = choice.best_standard
    mix = _judged(plan, choice, own, standard, reference, options, reporter)
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
    names = sorted({name for m in plan.pool.matrices if not m.given for name in m.types}, key=lambda n: (bits(n), n))
    return [names[0], *(n for n in names if bits(n) <= plan.bits_per_open_weight)][-1]


def _judged(
    plan: PlannedMix,
    choice: Choice,
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
        source=plan.source,
        target=plan.target,
        n_bytes=plan.pool.size_of(types),
        bits_per_weight=plan.pool.bits_per_weight(types),
        type=kind if options.type == "auto" else options.type,
        tensors=[_tensor(choice, m, types[m.name], standard, kept) for m in plan.pool.matrices],
        own=sides[0],
        standard=sides[1] if standard is not None else None,
        difference=difference,
        standard_kept=kept,
        reference_type=reference_type,
        n_measured=plan.measured.inputs.size,
        n_checked=plan.checked.inputs.size if plan.request.check else 0,
    )


def _divergences(
    plan: PlannedMix, mixes: Sequence[Mapping[str, str]], options: Options, reporter: runs.Reporter
) -> list[Doubles]:
    models = [plan.model]
    for types in mixes:
        changed = {
            m.name: quantized(m, types[m.name], options.compat) for m in plan.pool.matrices if m.name in plan.model.rows
        }
        models.append(with_rows(plan.model, changed))
    try:
        return [each.kld for each in run_models(models, plan.checked, options, reporter).divergences]
    except Interrupted as e:
        e.hint = "Run the same command again: what was measured is kept, and only the comparison starts over."
        raise


def _near_type(plan: PlannedMix) -> str:
    """A file type that the mix may call itself where no standard one is that small."""
    return plan.pool.standards[0].name if plan.pool.standards else "Q4_K_M"


def _tensor(choice: Choice, m: Matrix, type_name: str, standard: Standard | None, kept: bool) -> MixTensor:
    usual = standard.types[m.name] if standard is not None else ""
    loss = choice.curves[m.name][type_name]
    cost = choice.cost(m.name, type_name)
    return MixTensor(
        m.name, m.rows.shape, m.n_bytes(type_name), type_name, usual, _reason(choice, m, type_name, standard, kept),
        loss.error, loss.worst_row, choice.sensitivities[m.name], cost,
    )  # fmt: skip


def _reason(choice: Choice, m: Matrix, type_name: str, standard: Standard | None, kept: bool) -> str:
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
    size = f"{abs(more):,} bytes {'more' if more > 0 else 'less'}" if more else "as many bytes"
    result = f"save {saved:.2g} nats" if saved >= 0 else f"cost {-saved:.2g} nats"
    return f"{usual} in {standard.name}; {size} {result}"


def _require_planned(plan: PlannedMix, mix: Mix, options: Options) -> None:
    """Plan the conversion with the list: sizes and types must be those that were reckoned with."""
    given = replace(
        options,
        type=mix.type,
        tensor_types=(*rules_of(options), *(rule(t.name, t.type) for t in mix.tensors)),
        tensor_type_file=None,
    )
    prepared = planned(plan.source, plan.output, given)
    now = {t.name: t.encoding.type.name for t in prepared.outputs[0].tensors}
    wrong = [t.name for t in mix.tensors if now[t.name] != t.type]
    if wrong or prepared.plan.total_bytes != mix.n_bytes:
        raise AssertionError(
            f"{wrong or 'the file'}: planned otherwise than reckoned: {prepared.plan.total_bytes} bytes, not {mix.n_bytes}"
        )
