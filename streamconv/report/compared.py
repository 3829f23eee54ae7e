"""The page of a comparison: how far the predictions of models are from those of a reference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .facts import Compared
from .markup import Markup, tag
from .numbers import fixed, number, percent, spread, uncertain
from .page import base_name, base_names, facts, figure, folded, keys, page, section, stroke, table
from .plots import bars, dots, line, plot, rows_of_dots, upright
from .scales import Scale, linear, logarithmic, within

#: bars of a histogram a power of ten
_BARS = 6
#: powers of ten that a histogram has at most
_POWERS = 8
#: what ``compare`` calls percentiles -> what people do
_SHARES = {
    "maximum": "Maximum", "p99_9": "99.9 %", "p99": "99 %", "p95": "95 %", "p90": "90 %", "p75": "75 %", "median": "Median",
    "p25": "25 %", "p10": "10 %", "p5": "5 %", "p1": "1 %", "p0_1": "0.1 %", "minimum": "Minimum",
}  # fmt: skip
_PERPLEXITY = {
    "mean_ppl_q": "Perplexity of the model", "mean_ppl_base": "Perplexity of the reference", "mean_ratio": "Ratio of both",
    "mean_difference": "Difference", "mean_ln_ratio": "Logarithm of the ratio", "correlation": "Correlation of logarithms, %",
}  # fmt: skip


def compared_page(reference: str, models: Sequence[Compared], *, text: str, n_ctx: int, version: str = "") -> str:
    """The page of ``models`` against ``reference`` on ``text``, in chunks of ``n_ctx`` tokens."""
    names = base_names([m.model for m in models])
    one = names[0] if len(names) == 1 else f"{len(names)} models"
    n_chunks = len(models[0].divergence)
    said = " and ".join(m.model for m in models) if len(models) < 3 else one
    lead = (
        f"Predictions of {said} compared with those of {reference} on {text}:"
        f" {n_chunks} chunk{'s' if n_chunks > 1 else ''} of {n_ctx} tokens, {models[0].divergence.size:,} positions."
    )
    body: list[object] = []
    if len(models) > 1:
        links = (tag("li", tag("a", name, href=f"#model-{n}")) for n, name in enumerate(names, 1))
        body += [tag("nav", tag("ul", *links), aria_label="Models"), _side_by_side(names, models)]
    scale = _divergences(models)
    for n, model in enumerate(models, 1):
        body += [section(names[n - 1], f"model-{n}") if len(names) > 1 else "", *_model(model, scale)]
    return page(f"{one} against {base_name(reference)}", lead, *body, version=version)


def _model(model: Compared, scale: Scale | None) -> list[Markup]:
    divergence, token = model.statistics["kl_divergence"], model.statistics["token_probability"]
    perplexity = model.statistics["perplexity"]
    found = [facts(
        ("KL divergence", number(divergence["mean"]), f"± {spread(divergence['mean'], divergence['mean_uncertainty'])} nats, mean"),
        ("99 % of positions", number(divergence["p99"]), "nats at most"),
        ("Same first choice", f"{number(token['same_top_p'])} %", f"± {number(token['same_top_p_uncertainty'], 2)} %"),
        ("Perplexity", _ppl(perplexity["mean_ppl_q"]), f"reference {_ppl(perplexity['mean_ppl_base'])}"),
    )]  # fmt: skip
    found.append(_histogram(model, scale))
    if len(model.divergence) > 1:
        found += [_along(model), _running(model)]
    found.append(_probabilities(model))
    return found


def _divergences(models: Sequence[Compared]) -> Scale | None:
    """One axis for the histograms of all models; None where nothing differs."""
    values = np.concatenate([m.divergence.reshape(-1) for m in models])
    values = values[values > 0]
    if not len(values):
        return None
    high = 10.0 ** math.ceil(math.log10(values.max()) - 1e-9)
    low = 10.0 ** math.floor(math.log10(np.quantile(values, 0.005)))
    return logarithmic(max(low, high / 10.0**_POWERS), high)


def _histogram(model: Compared, scale: Scale | None) -> Markup:
    statistics = model.statistics["kl_divergence"]
    values = model.divergence.reshape(-1)
    rows = [["Mean", uncertain(statistics["mean"], statistics["mean_uncertainty"])]]
    rows += [[label, number(statistics[key])] for key, label in _SHARES.items() if key in statistics]
    whole = folded(
        "Show the numbers", table("Percentiles of the KL divergence, in nats", ["", "KL divergence"], rows, [1])
    )
    title = "KL divergence"
    if scale is None or not (values > 0).any():
        return figure(title, "Both predict exactly the same at every position: the divergence is 0 everywhere.", whole)
    n_bars = round(_BARS * (math.log10(scale.high) - math.log10(scale.low)))
    edges = np.logspace(math.log10(scale.low), math.log10(scale.high), n_bars + 1)
    counts, _ = np.histogram(np.clip(values, scale.low, scale.high), edges)
    below = int((values < scale.low).sum())
    shares = [float(c) / len(values) for c in counts]
    y = linear(0, 1.33 * max(shares), 4, percent)  # with room for names
    titles = [f"{number(a)} to {number(b)}: {c} positions" for a, b, c in zip(edges, edges[1:], counts, strict=False)]
    marked = [
        (f"{name} {number(statistics[key])}", statistics[key])
        for name, key in (("median", "median"), ("mean", "mean"), ("99 %", "p99"), ("99.9 %", "p99_9"))
        if statistics[key] > 0
    ]
    told = f"Histogram of the KL divergence at {len(values)} positions: " + ", ".join(name for name, _ in marked)
    text = "How far the prediction is from that of the reference, position by position; 0 means the same."
    if below:
        text += f" {below:,} positions with less than {number(scale.low)} are in the first bar."
    drawn = plot(
        scale, y, bars(scale, y, list(edges), shares, titles), upright(scale, marked), told=told, x_name="KL divergence, nats",
        y_name="share of positions", height=260,
    )  # fmt: skip
    return figure(title, text, drawn, whole)


def _along(model: Compared) -> Markup:
    """The mean of every chunk."""
    means = model.divergence.mean(axis=1)
    points = [(float(n), float(v)) for n, v in enumerate(means, 1)]
    x, y = within(0.5, len(points) + 0.5, 6), linear(0, max(float(means.max()), 1e-12), 4)
    titles = [f"chunk {n:.0f}: {number(v)}" for n, v in points]
    told = (
        f"Mean KL divergence of {len(points)} chunks: from {number(float(means.min()))} to {number(float(means.max()))}"
    )
    return figure(
        "Along the text", "Mean KL divergence of every chunk: parts of the text that the model lost more of stand out.",
        plot(x, y, line(x, y, points, "line"), dots(x, y, points, titles), told=told, x_name="chunk", y_name="nats", height=180),
    )  # fmt: skip


def _running(model: Compared) -> Markup:
    """The perplexity after every chunk."""
    own, base = model.perplexity, model.base_perplexity
    every = [v for v in (*own, *base) if math.isfinite(v)]
    low, high = min(every), max(every)
    x, y = within(0.5, len(own) + 0.5, 6), linear(low - 0.05 * (high - low), high, 4)
    lines = [
        line(x, y, [(float(n), v) for n, v in enumerate(values, 1)], class_)
        for values, class_ in ((base, "other"), (own, "line"))
    ]
    last = [(float(len(own)), own[-1])]
    told = f"Perplexity after {len(own)} chunks: {_ppl(own[-1])}, of the reference {_ppl(base[-1])}"
    rows = [
        [_PERPLEXITY[key], uncertain(model.statistics["perplexity"][key], model.statistics["perplexity"].get(f"{key}_uncertainty"))]
        for key in _PERPLEXITY
    ]  # fmt: skip
    return figure(
        "Perplexity", "Over all chunks so far: the lower, the better is the text predicted.",
        keys((stroke("line"), base_name(model.model)), (stroke("other"), "reference")),
        plot(x, y, *lines, dots(x, y, last, [told]), told=told, x_name="chunks", y_name="perplexity", height=180),
        folded("Show the numbers", table("Perplexity, with one standard deviation", ["", "Value"], rows, [1])),
    )  # fmt: skip


def _probabilities(model: Compared) -> Markup:
    """By how much the probability of the right token changed."""
    found = model.statistics["token_probability"]
    rows = [["Mean", f"{uncertain(found['mean'], found['mean_uncertainty'])} %"]]
    rows += [["Root mean square", f"{uncertain(found['rms'], found['rms_uncertainty'])} %"]]
    rows += [[label, f"{number(found[key])} %"] for key, label in _SHARES.items() if key in found]
    text = (
        f"The right token was {'less' if found['mean'] < 0 else 'more'} probable by {number(abs(found['mean']))} points on average;"
        f" the change has a root mean square of {number(found['rms'])} points."
    )
    return figure(
        "Probability of the right token",
        text,
        folded("Show the numbers", table("Change of the probability", ["", "Points"], rows, [1])),
    )


def _side_by_side(names: Sequence[str], models: Sequence[Compared]) -> Markup:
    """The mean divergence of several models."""
    rows, means = [], []
    for n, (name, m) in enumerate(zip(names, models, strict=True), 1):
        divergence, token = m.statistics["kl_divergence"], m.statistics["token_probability"]
        mean, uncertainty = divergence["mean"], divergence["mean_uncertainty"]
        means.append((name, mean, 2 * uncertainty))
        rows.append([
            tag("a", name, href=f"#model-{n}"), uncertain(mean, uncertainty), fixed(divergence["p99"], 3),
            f"{fixed(token['same_top_p'], 3)} %", _ppl(m.statistics["perplexity"]["mean_ppl_q"]),
        ])  # fmt: skip
    heads = ["Model", "Mean KL divergence, nats", "99 % below", "Same first choice", "Perplexity"]
    whole = table("All models on the same text", heads, rows, range(1, 5))
    text = "Mean KL divergence from the reference, with two standard deviations to both sides."
    ends = [end for _, mean, half in means for end in (mean - half, mean, mean + half) if end > 0]
    if not ends:
        return figure("Side by side", text, whole)
    told = "Mean KL divergence: " + ", ".join(f"{name} {number(mean)}" for name, mean, _ in means)
    scale = logarithmic(min(ends), max(ends))
    return figure("Side by side", text, rows_of_dots(scale, means, told=told, x_name="mean KL divergence, nats"), whole)


def _ppl(value: float) -> str:
    """A perplexity."""
    return f"{value:.2f}" if value < 1000 else number(value, 4)
