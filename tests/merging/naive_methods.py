"""Slow, obvious twins of merge methods: one element after the other, Python floats, from the formulas of the papers.

Each takes the models as lists of numbers, the base first, and the parameters of the recipe, and returns the merged numbers.
Results agree with the methods but for the rounding of float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Numbers = list[float]
Models = Sequence[Sequence[float]]
Parameters = Mapping[str, Any]


def kept(d: Sequence[float], first: int, last: int) -> Numbers:
    """``d`` with zeros but for the elements ranked ``first`` to ``last`` by magnitude, of equal ones the earlier first."""
    order = sorted(range(len(d)), key=lambda i: -abs(d[i]))
    chosen = set(order[first:last])
    return [v if i in chosen else 0.0 for i, v in enumerate(d)]


def largest(d: Sequence[float], p: Parameters) -> Numbers:
    """TIES: the ``density`` share of the largest."""
    return kept(d, 0, max(1, int(p["density"] * len(d))))


def crumbs(d: Sequence[float], p: Parameters) -> Numbers:
    """Breadcrumbs: the ``density`` share that is left without the ``gamma`` share of the largest."""
    keep, top = int(p["density"] * len(d)), int(p["gamma"] * len(d))
    last = min(len(d), keep + top)
    return kept(d, last - keep, last)


def everything(d: Sequence[float], p: Parameters) -> Numbers:
    return list(d)


def task_vectors(models: Models, p: Parameters, sparsify: Callable[..., Numbers], vote: bool) -> Numbers:
    base, *others = models
    weighted = []
    for x, weight in zip(others, p["weight"], strict=True):
        d = [v - b for v, b in zip(x, base, strict=True)]
        s = sparsify(d, p)
        before, after = sum(map(abs, d)), sum(map(abs, s))
        scale = before / after if p["rescale"] and min(before, after) >= 1e-7 else 1.0
        weighted.append([weight * scale * v for v in s])
    merged = []
    for b, *q in zip(base, *weighted, strict=True):
        voters = range(len(q))
        if vote:
            majority = 1 if sum(q) >= 0 else -1
            voters = [i for i in range(len(q)) if q[i] * majority > 0]
        divisor = sum(p["weight"][i] for i in voters) if p["normalize"] else 1.0
        merged.append(b + p["lambda"] * sum(q[i] for i in voters) / (divisor or 1.0))
    return merged


def linear(models: Models, p: Parameters) -> Numbers:
    total = sum(p["weight"]) if p["normalize"] else 1.0
    return [sum(w * v for w, v in zip(p["weight"], x, strict=True)) / total for x in zip(*models[1:], strict=True)]


def slerp(models: Models, p: Parameters) -> Numbers:
    a, b = models
    dot = sum(v * w for v, w in zip(a, b, strict=True))
    cosine = dot / math.sqrt(sum(v * v for v in a) * sum(w * w for w in b))
    t = p["t"]
    first, second = 1 - t, t
    if abs(cosine) <= 0.9995:
        angle = math.acos(cosine)
        first, second = math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
    return [first * v + second * w for v, w in zip(a, b, strict=True)]


def nearswap(models: Models, p: Parameters) -> Numbers:
    merged = []
    for b, x in zip(*models, strict=True):
        share = min(1.0, p["t"] / max(abs(b - x), 1e-6))
        merged.append(share * x + (1 - share) * b)
    return merged


def ram(models: Models, p: Parameters) -> Numbers:
    merged = []
    for b, *x in zip(*models, strict=True):
        changes = [v - b for v in x if abs(v - b) > p["epsilon"]]
        merged.append(b + sum(changes) / max(1, len(changes)))
    return merged


def model_stock(models: Models, p: Parameters) -> Numbers:
    base, *others = models
    d = [[v - b for v, b in zip(x, base, strict=True)] for x in others]
    n = len(d)

    def cosine(i: int, j: int) -> float:
        dot = sum(v * w for v, w in zip(d[i], d[j], strict=True))
        return dot / math.sqrt(sum(v * v for v in d[i]) * sum(w * w for w in d[j]))

    mean = sum(cosine(i, j) for i in range(n) for j in range(i)) / (n * (n - 1) / 2)
    t = n * mean / (1 + (n - 1) * mean)
    return [b + t * sum(q) / n for b, *q in zip(base, *d, strict=True)]


TWINS: dict[str, Callable[[Models, Parameters], Numbers]] = {
    "task_arithmetic": lambda m, p: task_vectors(m, p, everything, vote=False),
    "ties": lambda m, p: task_vectors(m, p, largest, vote=True),
    "breadcrumbs": lambda m, p: task_vectors(m, p, crumbs, vote=False),
    "breadcrumbs_ties": lambda m, p: task_vectors(m, p, crumbs, vote=True),
    "linear": linear,
    "slerp": slerp,
    "nearswap": nearswap,
    "ram": ram,
    "model_stock": model_stock,
}
