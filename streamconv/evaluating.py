"""What the commands that run a model print: ``imatrix``, ``compare``, ``perplexity``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from . import evaluation, progress
from .conversion import Options
from .errors import UsageError
from .evaluation import Compared, Measured, Request
from .forward.chunks import N_CTX
from .forward.divergence import Doubles, running, summary
from .forward.divergence import perplexity as perplexity_of
from .forward.importance import FEW_VISITS
from .progress import duration
from .quant import imatrix_statistics
from .terminal import say, say_json
from .units import size

#: halves of a text that differ by less, in the middle, are enough of it
_ENOUGH = 0.15
#: statistics mean nothing of fewer positions
_FEWEST = 100


def _request(a: argparse.Namespace) -> Request:
    """What the options say of the text."""
    if a.text is None and a.command != "imatrix":
        raise UsageError(
            f"{a.command}: which text? --text is missing", "Give a text of at least 20,000 tokens: --text FILE."
        )
    return Request(
        a.text, a.ctx_size or N_CTX, a.chunks, a.from_chunk, a.parse_special,
        process_output=getattr(a, "process_output", False), with_perplexity=not getattr(a, "no_ppl", False),
        before=tuple(getattr(a, "in_file", ())),
    )  # fmt: skip


# -- importance matrices -----------------------------------------------------------------------------------------------


def imatrix(a: argparse.Namespace, options: Options) -> int:
    """``streamconv imatrix``."""
    if a.output is None and a.text is None:
        return _without_model(a, options)
    if a.output is None:
        raise UsageError("imatrix: SRC and OUT are needed", "streamconv imatrix MODEL OUT.gguf")
    request = _request(a)
    reporter = progress.reporter(quiet=a.quiet, as_json=a.json)
    measurement = evaluation.prepare_imatrix(a.source, Path(a.output), request, options)
    for text in measurement.warnings:
        reporter.message(f"note: {text}")
    began = time.monotonic()
    with progress.told_in_errors(reporter):
        found = evaluation.write_imatrix(measurement, options, reporter)
    n_chunks, n_ctx = measurement.chunks.inputs.shape
    if a.json:
        say_json(_final(measurement.plan, found, n_chunks, n_ctx))
    elif not a.quiet:
        say(*_told(measurement.plan.output, found, n_chunks, n_ctx, reporter, time.monotonic() - began))
    if a.show_statistics:
        _show(a, [measurement.plan.output])
    return 0


#: options of a run over a text -> whether they were given
_OF_MODELS: dict[str, Callable[[argparse.Namespace], bool]] = {
    "--chunks": lambda a: a.chunks is not None,
    "--from-chunk": lambda a: a.from_chunk != 0,
    "--parse-special": lambda a: a.parse_special,
    "--process-output": lambda a: a.process_output,
    "--no-ppl": lambda a: a.no_ppl,
    "--pre": lambda a: hasattr(a, "pre"),  # only where it is given
}


def _without_model(a: argparse.Namespace, options: Options) -> int:
    """Add importance matrices up, convert one, or show statistics of one."""
    if not a.in_file:
        raise UsageError(
            "imatrix: there is nothing to do",
            "streamconv imatrix MODEL OUT.gguf, or streamconv imatrix OUT.gguf --in-file FILE",
        )
    idle = [flag for flag, given in _OF_MODELS.items() if given(a)]
    if idle:
        raise UsageError(f"imatrix: {idle[0]} has no effect without a model", "Leave it out, or give SRC and OUT.")
    if a.source is None:
        if not a.show_statistics or len(a.in_file) > 1:
            raise UsageError("imatrix: OUT is missing", "streamconv imatrix OUT.gguf --in-file FILE …")
        return _show(a, a.in_file)
    reporter = progress.reporter(quiet=a.quiet, as_json=a.json)
    plan, sums = evaluation.prepare_sum(Path(a.source), a.in_file, a.ctx_size)
    with progress.told_in_errors(reporter):
        outcome = evaluation.write_sum(plan, options, reporter)
    if a.json:
        say_json(_final(plan, outcome, sums.n_chunks, sums.chunk_size))
    elif not a.quiet:
        already = " is already complete" if outcome is None else ""
        say(f"{plan.output}{already}: {len(sums.shapes)} entries, {sums.n_chunks} chunks of {sums.chunk_size} tokens")
    if a.show_statistics:
        _show(a, [plan.output])
    return 0


def _show(a: argparse.Namespace, paths: Sequence[Path]) -> int:
    """Print statistics."""
    found = imatrix_statistics.statistics(evaluation.open_sums(paths))
    if a.json:
        say_json({"event": "statistics", **imatrix_statistics.as_json(found)})
    else:
        say(*imatrix_statistics.lines(str(paths[0]), found))
    return 0


def _final(plan: Any, found: Any, n_chunks: int, n_ctx: int) -> dict[str, Any]:
    """The last line of ``--json``."""
    facts = {
        "event": "done", "status": "done", "resumable": False, "done": plan.total_bytes, "total": plan.total_bytes,
        "files": [str(plan.output)], "already": found is None, "chunks": n_chunks, "chunk_size": n_ctx, "next": "",
    }  # fmt: skip
    if isinstance(found, Measured):
        if found.log_p is not None:
            facts["perplexity"] = _as_json(found.log_p)
        facts |= {
            "halves_differ": found.deviation[0],
            "experts": found.n_experts,
            "experts_hardly_reached": found.few_visits,
        }
    return facts


def _told(
    output: Path, found: Measured | None, n_chunks: int, n_ctx: int, reporter: progress.Silent, seconds: float
) -> Iterator[str]:
    """What was made, in a few lines."""
    if found is None:
        yield f"{output} is already complete; nothing to do"
        return
    if found.log_p is not None:
        yield from _perplexities(found.log_p)
    yield f"{output}: {n_chunks} chunks of {n_ctx} tokens"
    yield f"  {duration(seconds)}, peak {size(reporter.peak_memory)} RAM"
    yield from (f"  note: {text}" for text in found.outcome.notes)
    deviation, name = found.deviation
    if deviation:
        verdict = "the text is long enough" if deviation < _ENOUGH else "a longer text would make a better matrix"
        yield f"  halves of the text differ by {100 * deviation:.1f} % in the middle, in {name}: {verdict}"
    if found.few_visits:
        yield (
            f"  note: {found.few_visits} of {found.n_experts} experts were reached by fewer than {FEW_VISITS} tokens;"
            " their entries are mostly chance: use more --chunks"
        )


# -- perplexity and comparison -----------------------------------------------------------------------------------------


def perplexity(a: argparse.Namespace, options: Options) -> int:
    """``streamconv perplexity``."""
    reporter = _reporter(a)
    with (
        progress.told_in_errors(reporter),
        evaluation.compare(a.source, [], _request(a), options, reporter, a.work) as found,
    ):
        if a.json:
            say_json(_as_json(found.log_p))
        else:
            say(*_perplexities(found.log_p))
    return 0


def compare(a: argparse.Namespace, options: Options) -> int:
    """``streamconv compare``."""
    reporter = _reporter(a)
    request, work = _request(a), a.work or options.report
    with (
        progress.told_in_errors(reporter),
        evaluation.compare(a.reference, a.models, request, options, reporter, work) as found,
    ):
        _tell_compared(a, options, request, found)
    return 0


def _tell_compared(a: argparse.Namespace, options: Options, request: Request, found: Compared) -> None:
    """Print what was found, and write its page."""
    facts = [
        {"model": str(name), "reference": str(a.reference), **summary(each)}
        for name, each in zip(a.models, found.divergences, strict=True)
    ]
    try:
        if options.report:
            name = request.text_name
            evaluation.write_page(options.report, a.reference, a.models, found.chunks, found.divergences, name)
    finally:  # what was found is printed whatever becomes of the page
        if a.json:
            say_json(facts[0] if len(facts) == 1 else facts)
        else:
            for each in facts:
                say(*_compared(each, found, titled=len(facts) > 1))


def _reporter(a: argparse.Namespace) -> progress.Silent:
    """Progress goes to stderr, with ``--json`` too: stdout has the result and nothing else."""
    return progress.reporter(quiet=a.quiet, as_json=False, stream=sys.stderr)


def _as_json(log_p: Doubles) -> dict[str, Any]:
    found = perplexity_of(log_p.reshape(-1))
    return {"mean_ppl": found.value, "uncertainty": found.uncertainty, "n": log_p.size}


def _perplexities(log_p: Doubles) -> Iterator[str]:
    """As llama.cpp's tools print them."""
    yield "".join(f"[{n}]{value:.4f}," for n, value in enumerate(running(log_p), 1))
    found = perplexity_of(log_p.reshape(-1))
    yield f"Final estimate: PPL = {found.value:.4f} +/- {found.uncertainty:.5f}"


#: what is printed -> the key, and a sign behind
_PERPLEXITY = {
    "Mean PPL(Q)": "mean_ppl_q",
    "Mean PPL(base)": "mean_ppl_base",
    "Cor(ln(PPL(Q)), ln(PPL(base)))": "correlation",
    "Mean ln(PPL(Q)/PPL(base))": "mean_ln_ratio",
    "Mean PPL(Q)/PPL(base)": "mean_ratio",
    "Mean PPL(Q)-PPL(base)": "mean_difference",
}
_SHARES = {
    "mean": "Mean   ", "maximum": "Maximum", "p99_9": "99.9%  ", "p99": "99.0%  ", "p95": "95.0%  ", "p90": "90.0%  ",
    "p75": "75.0%  ", "median": "Median ", "p25": "25.0%  ", "p10": "10.0%  ", "p5": " 5.0%  ", "p1": " 1.0%  ",
    "p0_1": " 0.1%  ", "minimum": "Minimum",
}  # fmt: skip


def _compared(facts: dict[str, Any], found: Compared, *, titled: bool) -> Iterator[str]:
    """As llama-perplexity prints it."""
    if titled:
        yield f"{facts['model']} against {facts['reference']}"
    if facts["n"] < _FEWEST:
        yield f"only {facts['n']} positions: statistics would mean little; use more --chunks or a longer text"
    yield "====== Perplexity statistics ======"
    for label, key in _PERPLEXITY.items():
        sign = "%" if key == "correlation" else ""
        yield f"{label:30}: {_value(facts['perplexity'], key, '10.6f', sign)}"
    yield "====== KL divergence statistics ======"
    for key, label in _SHARES.items():
        if key in facts["kl_divergence"]:
            yield f"{label} KLD: {_value(facts['kl_divergence'], key, '10.6f')}"
    yield "====== Token probability statistics ======"
    shown = {**{key: f"{label} Δp" for key, label in _SHARES.items()}, "rms": "RMS Δp    ", "same_top_p": "Same top p"}
    for key, label in shown.items():
        yield f"{label}: {_value(facts['token_probability'], key, '6.3f', '%')}"


def _value(facts: dict[str, Any], key: str, form: str, sign: str = "") -> str:
    found = f"{facts[key]:{form}}"
    uncertainty = facts.get(f"{key}_uncertainty")
    return f"{found}{'' if uncertainty is None else f' ± {uncertainty:{form}}'}{f' {sign}' if sign else ''}"
