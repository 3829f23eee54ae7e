"""How a model's tensors are made of a checkpoint's: most are renamed, some are stacked, split or made from nothing.

What a rule does not name is renamed as the ``gguf`` package does for the architecture. Tensors are ordered like the reference's:
those that are made from nothing first, any other where the last of its sources is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ..errors import BadInput
from ..kit import Stacked, join, split
from ..rows import Rows
from .config import Config
from .gguf_names import known_names
from .names import Indices, Templates

#: (rows of each source, configuration) -> rows of each target
Make = Callable[[Sequence[Rows], Config], Sequence[Rows]]
#: ends of the names of tensors, which are the same in a checkpoint and in GGUF
SUFFIXES = (".weight", ".bias")
#: experts as MLX stacks them, in whichever family
_OF_MLX = {
    f"model.layers.{{bid}}.{module}.switch_mlp.{part}_proj": f"blk.{{bid}}.ffn_{part}_exps"
    for module in ("mlp", "block_sparse_moe")
    for part in ("down", "gate", "up")
}


def as_they_are(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """Every source is a target."""
    return rows


def halves(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """Two matrices, or stacks of them, out of one whose rows are theirs one behind the other."""
    axis = len(rows[0].shape) - 2
    return split(rows[0], [rows[0].shape[axis] // 2] * 2, axis)


def always(_config: Config, _block: int) -> bool:
    """In every block, whatever the configuration."""
    return True


class Rule(NamedTuple):
    """Some tensors of a model, or of every block.

    Attributes
    ----------
    targets : GGUF names; ``{bid}`` is the number of a block
    sources : names in a checkpoint; ``{x}`` stands for every number, whose tensors come stacked; none makes tensors
    make : the targets from the sources
    when : (configuration, block, or -1 where the targets are of no block) -> whether the rule holds
    first : its targets come before all others, those of one rule in the order of blocks
    joined : tensors of an ``{x}`` come one behind the other, and may be of different lengths
    last : its targets come behind all others
    apart : every target is made of the source of its number alone
    """

    targets: tuple[str, ...]
    sources: tuple[str, ...] = ()
    make: Make = as_they_are
    when: Callable[[Config, int], bool] = always
    first: bool = False
    joined: bool = False
    last: bool = False
    apart: bool = False

    def parts(self) -> tuple[Rule, ...]:
        """A rule for every target, where they are made ``apart``; else itself."""
        if not (self.apart or (self.make is as_they_are and len(self.sources) > 1)):
            return (self,)
        pairs = zip(self.targets, self.sources, strict=True)
        return tuple(self._replace(targets=(target,), sources=(source,)) for target, source in pairs)


def rename(source: str, target: str) -> Rule:
    """A tensor under another name."""
    return Rule((target,), (source,))


def experts(source: str, **names: str) -> Rule:
    """The experts ``source.{x}.NAME.weight`` stacked; the names of ``down``, ``gate`` and ``up`` in the order of the output."""

    def make(rows: Sequence[Rows], config: Config) -> Sequence[Rows]:
        if wrong := {r.shape[0] for r in rows} - {config.n_experts}:
            raise BadInput(f"the checkpoint has {wrong.pop()} experts in {source}, config.json says {config.n_experts}")
        return rows

    return Rule(
        tuple(f"blk.{{bid}}.ffn_{target}_exps.weight" for target in names),
        tuple(f"{source}.{{x}}.{name}.weight" for name in names.values()),
        make,
        apart=True,
    )


def packed_experts(source: str) -> tuple[Rule, ...]:
    """Experts that are stacked already: ``source.down_proj``, and ``source.gate_up_proj`` with rows of gate before those of up."""

    gate_up = tuple(f"blk.{{bid}}.ffn_{target}_exps.weight" for target in ("gate", "up"))
    down = rename(f"{source}.down_proj", "blk.{bid}.ffn_down_exps.weight")
    return down, Rule(gate_up, (f"{source}.gate_up_proj",), halves)


@contextmanager
def fitting(source: str, rows: Sequence[Rows], config: Config) -> Iterator[None]:
    """Where something is made of ``rows``: BadInput when their shapes are not those that the configuration says."""
    try:
        yield
    except (ValueError, IndexError, ZeroDivisionError) as e:
        shapes = " and ".join(str(list(r.shape)) for r in rows)
        why = f": {e}" if isinstance(e, ValueError) else ""
        raise BadInput(
            f"{config.folder}: tensor {source!r} has shape {shapes}, which does not fit config.json{why}",
            "The tensor and config.json are from different models; fetch the checkpoint again.",
        ) from None


class _Job(NamedTuple):
    """A rule in one block: what was found of its sources."""

    rule: Rule
    place: int | None
    found: list[dict[int, Rows]]


class Names:
    """The names of an architecture.

    Parameters
    ----------
    arch : as GGUF calls it
    rules : what is not just renamed
    more : names that the reference table lacks or has otherwise: in a checkpoint -> in GGUF, without suffix
    suffixes : of names that are renamed
    """

    def __init__(
        self, arch: str, rules: Sequence[Rule], more: Mapping[str, str], suffixes: Sequence[str] = SUFFIXES
    ) -> None:
        self.rules = rules
        self._suffixes = suffixes
        self._known = Templates([*known_names(arch), *_OF_MLX.items(), *more.items()])
        self._sources = Templates([(s, (n, i)) for n, rule in enumerate(rules) for i, s in enumerate(rule.sources)])

    def renamed(self, name: str) -> tuple[str, Indices] | None:
        """The GGUF name of a tensor that is only renamed, None where none is known."""
        for suffix in ("", *self._suffixes):
            stem = name.removesuffix(suffix) if suffix else name
            if (stem != name or not suffix) and (found := self._known.find(stem)):
                target, place = found[-1]
                return target.format(bid=place.bid, xid=place.x) + suffix, place
        return None

    def ruled(self, name: str, config: Config) -> Iterator[tuple[int, int, Indices]]:
        """``(number of a rule, number of its source, place)`` that hold for tensor ``name``."""
        for (rule, source), place in self._sources.find(name):
            if self.rules[rule].when(config, -1 if place.bid is None else place.bid):
                yield rule, source, place


def bind(
    tensors: Mapping[str, Rows], names: Names, config: Config, unknown: Callable[[str], BadInput]
) -> Iterator[tuple[str, Rows, str]]:
    """``(GGUF name, rows, names of the sources)`` of every tensor of the model, in order.

    Parameters
    ----------
    tensors : name, as rules spell it -> rows
    unknown : what to raise for a name that has no place

    Raises
    ------
    BadInput : a source of a rule is missing, or a name has no place
    """
    for rule in names.rules:
        if not rule.sources:
            yield from _made(rule, config)
    jobs: dict[object, _Job] = {}
    for name, rows in tensors.items():
        wanted = list(names.ruled(name, config))
        for number, source, place in wanted:
            rule = names.rules[number]
            job = jobs.pop((number, place.bid), None) or _Job(rule, place.bid, [{} for _ in rule.sources])
            job.found[source][place.x or 0] = rows
            jobs[number, place.bid] = job  # now the last: its targets come where the last source is
        if not wanted:
            found = names.renamed(name)
            if found is None:
                raise unknown(name)
            jobs[name] = _Job(rename(name, found[0]), None, [{0: rows}])
    for job in sorted(jobs.values(), key=lambda job: _place(job, names.rules)):
        yield from _finished(job, config)


def _place(job: _Job, rules: Sequence[Rule]) -> tuple[int, int, int]:
    """What sorts jobs; the reference writes rows that are copied as blocks before it looks at others."""
    if job.rule.first:
        return 0, rules.index(job.rule), -1 if job.place is None else job.place
    return 3 if job.rule.last else 1 if ":" in job.rule.sources[0] else 2, 0, 0


def _made(rule: Rule, config: Config) -> Iterator[tuple[str, Rows, str]]:
    blocks = range(config.n_layers) if "{bid}" in rule.targets[0] else (-1,)
    for block in blocks:
        if rule.when(config, block):
            for target, rows in zip(rule.targets, rule.make((), config), strict=True):
                yield target.format(bid=block), rows, ""


def _finished(job: _Job, config: Config) -> Iterator[tuple[str, Rows, str]]:
    """The targets of a rule in one block."""
    rule = job.rule
    parts = [
        _whole(source.replace("{bid}", str(job.place)), found, config, rule.joined)
        for source, found in zip(rule.sources, job.found, strict=True)
    ]
    told = " and ".join(source.replace("{bid}", str(job.place)) for source in rule.sources)
    with fitting(told, parts, config):
        made = list(zip(rule.targets, rule.make(parts, config), strict=True))
    for target, rows in made:
        yield target.replace("{bid}", str(job.place)), rows, told


def _whole(source: str, found: Mapping[int, Rows], config: Config, joined: bool) -> Rows:
    """The one tensor of a source, or all of them stacked, or ``joined``, in numeric order."""
    if "{x}" not in source and found:
        return found[0]
    missing = next((x for x in range(len(found) or 1) if x not in found), None)
    if missing is not None:
        raise BadInput(
            f"no tensor {source.replace('{x}', str(missing))!r} beside others of its kind",
            "Is this the whole checkpoint?",
        )
    experts = [found[x] for x in range(len(found))]
    with fitting(source, experts, config):
        return join(experts) if joined else Stacked(experts)
