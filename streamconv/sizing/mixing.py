"""From a size to a list of types: measure, solve, compare with the best standard mix, keep the better one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..conversion import Options, rules_of
from ..engine import run as runs
from ..evaluation.walk import held_bytes
from ..forward.divergence import Doubles, mean
from ..limits import one_thread_of_blas
from ..threads import spread
from .choosing import Choice, sensitivities
from .comparison import Comparison
from .course import Course
from .curves import Loss, losses
from .planning import PlannedMix
from .pool import Matrix, Standard, planned, rule
from .records import Measuring, Step, forget, opened
from .result import Mix, MixSide, MixTensor
from .sensitivity import Pass


def make_mix(
    plan: PlannedMix, path: Path, options: Options, reporter: runs.Reporter, write: Callable[[Mix], None]
) -> Mix:
    """Measure and choose, and ``write`` the list.

    Parameters
    ----------
    path : the list; what is measured is kept in a job folder beside it until it is written, and the next run goes on from there

    Raises
    ------
    Stopped, Interrupted : what was measured is kept
    StreamconvError : whatever the inputs raise
    """
    if plan.hub.models:
        plan.hub.notes.listen(lambda note: reporter.message(f"note: {note}"))
        plan.hub.download(plan.hub.weights)
    stages = _Stages(plan, options)
    with opened(stages.measuring(path), options) as records:
        for note in records.notes:
            reporter.message(f"note: {note}")
        course = Course(records, replace(options, ram_bytes=options.ram - held_bytes(plan.model)), reporter)
        with course.stop.on_signals():
            curves = _curves(plan, course)
            cost = stages.sensitivity.run(course)
            choice = Choice(plan, curves, sensitivities(plan.pool.matrices, plan.reference, cost, curves))
            mix = _judged(plan, choice, stages.comparison, course)
            _require_planned(plan, mix, options)
            records.confirm()
        write(mix)
        records.discard()
    return mix


def forget_measured(plan: PlannedMix, path: Path, options: Options) -> None:
    """Remove what a run that was killed when the list ``path`` was there has left."""
    forget(_Stages(plan, options).measuring(path))


class _Stages:
    """What is measured for a plan, in order."""

    def __init__(self, plan: PlannedMix, options: Options) -> None:
        self._plan = plan
        request, matrices = plan.request, plan.pool.matrices
        self.sensitivity = Pass(
            plan.model, matrices, plan.reference, plan.measured, plan.n_trial, request.thorough, options
        )
        self.comparison = Comparison(plan.model, matrices, plan.checked)

    def measuring(self, path: Path) -> Measuring:
        """The job that keeps it."""
        plan = self._plan
        steps = [Step(m.name, 2 * len(_types(plan, m)), [m.rows], follows=False) for m in plan.pool.matrices]
        steps += [*self.sensitivity.steps, *(self.comparison.steps if plan.request.check else ())]
        scratch = max(self.sensitivity.scratch_bytes, self.comparison.scratch_bytes if plan.request.check else 0)
        return Measuring(path, bytes.fromhex(plan.inputs), plan.checkpoint, plan.source, steps, scratch)


def _types(plan: PlannedMix, m: Matrix) -> list[str]:
    """Types that a matrix may have, here, while it is measured, or in a standard mix."""
    return sorted({*m.types.values(), m.measured_with(plan.reference), *(s.types[m.name] for s in plan.pool.standards)})


def _curves(plan: PlannedMix, course: Course) -> dict[str, dict[str, Loss]]:
    """What each type of a matrix loses of it."""
    found: dict[str, dict[str, Loss]] = {}

    def taken(matrix: Matrix, values: Doubles) -> None:
        pairs = values.reshape(-1, 2).tolist()
        found[matrix.name] = {name: Loss(*pair) for name, pair in zip(_types(plan, matrix), pairs, strict=True)}

    missing = []
    for matrix in plan.pool.matrices:
        values = course.records.of(matrix.name)
        if values is None:
            missing.append(matrix)
        else:
            taken(matrix, values)

    def one(matrix: Matrix) -> None:
        course.look_between()
        types = _types(plan, matrix)
        lost = losses(matrix.rows, types, matrix.weights, matrix.visits, course.options.compat)
        values = np.array([lost[name] for name in types], np.float64).reshape(-1)
        course.records.commit(matrix.name, values)
        taken(matrix, values)

    if missing:
        course.reporter.message(f"quantizing samples of {len(missing)} matrices")
        with one_thread_of_blas():
            spread(one, missing, course.threads)
        course.look_between()
    return found


def _judged(plan: PlannedMix, choice: Choice, comparison: Comparison, course: Course) -> Mix:
    """Both mixes on the text that was held out, and the better one."""
    own, standard = choice.solved(), choice.best_standard
    sides = [MixSide("measured", plan.pool.size_of(own), choice.predicted(own))]
    mixes = [own]
    if standard is not None:
        sides.append(MixSide(standard.name, standard.n_bytes, choice.predicted(standard.types)))
        mixes.append({name: standard.types[name] for name in own})
    difference, n_checked = None, 0
    if plan.request.check:
        klds, n_checked = comparison.run(course, mixes if mixes[0] != mixes[-1] else [own])
        sides = [replace(side, measured_kl=mean(klds[min(n, len(klds) - 1)])) for n, side in enumerate(sides)]
        difference = mean(klds[0] - klds[-1]) if standard is not None else None
    is_same = standard is not None and mixes[0] == mixes[1]
    kept = is_same or (difference is not None and difference.value + 2 * difference.uncertainty > 0)
    types = standard.types if kept and standard is not None else own
    kind = standard.name if standard is not None else _near_type(plan)
    return Mix(
        source=plan.source,
        target=plan.target,
        n_bytes=plan.pool.size_of(types),
        bits_per_weight=plan.pool.bits_per_weight(types),
        type=kind if course.options.type == "auto" else course.options.type,
        tensors=[_tensor(choice, m, types[m.name], standard, kept) for m in plan.pool.matrices],
        own=sides[0],
        standard=sides[1] if standard is not None else None,
        difference=difference,
        standard_kept=kept,
        reference_type=plan.reference,
        n_measured=plan.measured.inputs.size,
        n_checked=n_checked,
    )


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
