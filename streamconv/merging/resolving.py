"""A recipe and the models it names, into the tensors of the output.

Everything is decided here from names, shapes and configurations: which tensors of which models make each output tensor, with
which parameters. No weight is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import BadInput, UsageError
from ..file_names import OF_FOLDERS, container_of
from ..rows import Rows
from ..sources.checkpoint import Checkpoint
from ..sources.state_dicts import is_buffer
from .binding import Input, MergeOptions, Rules, merged_tensor
from .keys import naming
from .layout import Layout, Place, flat, lay_out
from .methods import METHODS, Method
from .recipe import Recipe, Slice, Stack
from .vocabulary import VocabularyPlan

_EXPERTS = re.compile(r"\.(experts|switch_mlp)\.")
_ONE_BY_ONE = re.compile(r"\.experts\.\d+\.")


@dataclass(frozen=True)
class Model:
    """An opened model with its layout."""

    name: str
    checkpoint: Checkpoint
    layout: Layout


@dataclass(frozen=True)
class SourceLayer:
    """Where a layer of the output comes from: the first source of its slice."""

    model: Model
    layer: int


@dataclass
class Merge:
    """What comes of a document.

    Attributes
    ----------
    tensors : the output by name
    layers : module -> for each output layer where it comes from
    restacked : the recipe names layers, so their number and order may have changed
    """

    tensors: dict[str, Rows] = field(default_factory=dict)
    layers: dict[str, list[SourceLayer]] = field(default_factory=dict)
    restacked: bool = False
    warnings: list[str] = field(default_factory=list)


def open_layouts(models: Mapping[str, Checkpoint]) -> dict[str, Model]:
    """The layout of every model; single files of tensors have no layers, all models among them being such files."""
    if all(is_plain_file(each) for each in models.values()):
        return {name: Model(name, each, flat(each.tensors)) for name, each in models.items()}
    return {name: Model(name, each, lay_out(each.tensors, _config(each))) for name, each in models.items()}


def is_plain_file(checkpoint: Checkpoint) -> bool:
    """Whether it is a file of tensors rather than a model: of any content, with names that mean nothing to us."""
    return checkpoint.metadata is None and container_of(checkpoint.path.name) in OF_FOLDERS


def _config(checkpoint: Checkpoint) -> Mapping[str, object]:
    """config.json, or what a GGUF file says in its place."""
    if checkpoint.metadata is None:
        return checkpoint.config
    arch = checkpoint.metadata.get("general.architecture", "")
    return {"num_hidden_layers": checkpoint.metadata.get(f"{arch}.block_count")}


class Resolver:
    """Resolves one document.

    Parameters
    ----------
    recipe : the document
    models : reference -> model; the first gives its names to the output
    vocabulary : how vocabulary tensors are rearranged, or None
    """

    def __init__(
        self, recipe: Recipe, models: Mapping[str, Model], vocabulary: VocabularyPlan | None, options: MergeOptions
    ) -> None:
        self.recipe = recipe
        self._in_float32 = replace(recipe, dtype=None, out_dtype="F32")
        self.method = METHODS[recipe.method]
        self.models = models
        self.first = next(iter(models.values()))
        self.vocabulary = vocabulary
        self.options = options
        self.merge = Merge()

    def resolve(self) -> Merge:
        """All tensors of the output.

        Raises
        ------
        BadInput, UsageError : the recipe does not fit the models
        """
        self._check_architectures()
        for module, stack in self._stacks().items():
            self._module(module, stack)
        return self.merge

    def recipe_for(self, inputs: Sequence[Input]) -> Recipe:
        """The recipe for one tensor: vectors of GGUF files are float32 whatever it says, for runtimes take no others."""
        is_vector = len(inputs[0].rows.shape) < 2
        return self._in_float32 if is_vector and self.first.checkpoint.metadata is not None else self.recipe

    def _check_architectures(self) -> None:
        """One architecture for all, unless crimes are allowed."""
        overrides = {str(r): r.architecture for r in self.recipe.references() if r.architecture}
        found = {name: overrides.get(name) or _architecture(m.checkpoint) for name, m in self.models.items()}
        known = {name: arch for name, arch in found.items() if arch}
        if len(set(known.values())) > 1 and not self.options.allow_crimes:
            listed = ", ".join(f"{name} is {arch}" for name, arch in known.items())
            raise BadInput(
                f"{self.recipe.where}: the models have different architectures: {listed}",
                "Merge models of one architecture; --allow-crimes merges tensors of the same name anyway.",
            )
        if len({m.checkpoint.metadata is None for m in self.models.values()}) > 1:
            raise BadInput(
                f"{self.recipe.where}: some models are GGUF files and some are not, so their tensors have different names",
                "Merge GGUF files with GGUF files, or checkpoints with checkpoints.",
            )

    def _stacks(self) -> dict[str, Stack]:
        """The stack of every module."""
        recipe, names = self.recipe, self.first.layout.modules
        if recipe.stack is not None:
            if len(names) > 1 and not recipe.stack.whole:
                raise UsageError(
                    f"{recipe.where}: slices are ambiguous, the model has the modules {', '.join(names)}",
                    "Write modules: {NAME: {slices: ...}} with models for those that stay whole.",
                )
            return dict.fromkeys(names, recipe.stack)
        if set(recipe.modules) != set(names):
            raise BadInput(
                f"{recipe.where}: modules names {', '.join(recipe.modules)}, the model has {', '.join(names)}",
                "Give every module of the model once.",
            )
        return {name: recipe.modules[name] for name in names}

    def _module(self, module: str, stack: Stack) -> None:
        """All tensors of one module."""
        slices = [_Sliced(self, module, stack, part, number) for number, part in enumerate(stack.slices)]
        if not stack.whole and not any(part.length for part in slices):
            raise BadInput(
                f"{self.recipe.where}: the slices of {module} contain no layers",
                "A slice without layers gives what comes before or after those of others.",
            )
        self.merge.restacked |= not stack.whole
        first, last = slices[0], slices[-1]
        before = [place for place in first.outside() if not place.comes_after]
        after = [place for place in last.outside() if place.comes_after]
        for place in before:
            first.tensor(place, None, 0)
        layers: list[SourceLayer] = []
        for part in slices:
            for j in range(part.length):
                layers.append(SourceLayer(part.sources[0].model, part.sources[0].start + j))
                for place in part.inside(j):
                    part.tensor(place, j, len(layers) - 1)
        for place in after:
            last.tensor(place, None, len(layers))
        self.merge.layers[module] = layers


@dataclass(frozen=True)
class _Range:
    """A source of a slice: a model from layer ``start`` on, and whether it is the base."""

    model: Model
    start: int
    rules: Rules
    is_base: bool


class _Sliced:
    """One slice of one module, checked against the models; without layers the first and the last one matter all the same."""

    def __init__(self, resolver: Resolver, module: str, stack: Stack, part: Slice, number: int) -> None:
        self.resolver = resolver
        self.module = module
        recipe = resolver.recipe
        self.place = ", models" if stack.whole else f", slice {number + 1}"
        self.where = recipe.where + self.place
        self.shared_rules = [part.parameters, stack.parameters, recipe.parameters]
        base = str(part.base_model or recipe.base_model) if part.base_model or recipe.base_model else None
        names = [str(source.model) for source in part.sources]
        for name in names:
            if names.count(name) > 1:
                raise BadInput(f"{self.where}: {name} is listed twice", "List every model once; add the weights up.")
        wanted = [(str(s.model), s.layer_range, [s.parameters, *self.shared_rules]) for s in part.sources]
        if stack.whole and base is not None and base not in names:
            wanted.append((base, None, self.shared_rules))
        lengths, self.sources = [], []
        for name, layers, rules in wanted:
            model = resolver.models[name]
            count = model.layout.counts.get(module, 0)
            start, stop = layers or (0, count)
            if stop > count:
                raise BadInput(
                    f"{self.where}: layer_range [{start}, {stop}] of {name}, which has {count} layers",
                    f"The end is exclusive and at most {count}.",
                )
            lengths.append(stop - start)
            self.sources.append(_Range(model, start, rules, name == base and resolver.method.base != "ordinary"))
        if len(set(lengths)) > 1:
            found = ", ".join(f"{name}: {n}" for (name, _, _), n in zip(wanted, lengths, strict=True))
            raise BadInput(
                f"{self.where}: the sources have different numbers of layers ({found})",
                "Give layer_range of equal length for all of them.",
            )
        self.length = lengths[0]
        if self.length:  # one without layers gives a few tensors outside of them; each method decides about these
            self._check_count(base)

    def _check_count(self, base: str | None) -> None:
        """The method's contract on the number of inputs."""
        method, n = self.resolver.method, sum(not s.is_base for s in self.sources)
        has_base = any(s.is_base for s in self.sources)
        if method.base == "required" and not has_base:
            if base is None:
                raise BadInput(f"{self.where}: {method.name} needs a base_model", "Add base_model: PATH.")
            raise BadInput(f"{self.where}: base_model {base} is not among the sources", "List it in every slice.")
        if method.least <= n and (method.most is None or n <= method.most):
            return
        least, most = method.least, method.most
        count = f"exactly {least}" if least == most else f"at least {least}"
        beside = " beside the base" if method.base != "ordinary" else ""
        beside_base = sum(s.model.name != base for s in self.sources)
        fitting = [m.name for m in METHODS.there() if _takes(m, beside_base, len(self.sources) > beside_base)]
        raise BadInput(
            f"{self.where}: {method.name} takes {count} model{'s' * (least != 1)}{beside}, there are {n}",
            f"Change what is listed, or use a method that takes these: {', '.join(fitting)}." if fitting else "",
        )

    def outside(self) -> list[Place]:
        """Places outside of the layers that any source has, in the order of the first."""
        return list(dict.fromkeys(p for s in self.sources for p in s.model.layout.outside(self.module)))

    def inside(self, j: int) -> list[Place]:
        """Places in layer ``j`` of the slice, with layer 0."""
        found = (p for s in self.sources for p in s.model.layout.inside(self.module, s.start + j))
        return list(dict.fromkeys(Place(p.module, 0, p.key) for p in found))

    def _advice(self, lacking: Checkpoint) -> str:
        """What to do where ``lacking`` has not the tensors of the others."""
        forms = {_form_of_experts(source.model.checkpoint.tensors) for source in self.sources}
        if "" in forms or len(forms) == 1:
            return "Merge models of the same structure."
        own = _form_of_experts(lacking.tensors)
        return (
            f"{lacking.path} has its experts {own}, another model has not; save all with the same program and version."
        )

    def tensor(self, place: Place, j: int | None, layer: int) -> None:
        """Plan one output tensor: ``place`` in layer ``j`` of the slice, ``layer`` of the output, or as many of them."""
        inputs, missing = [], []
        for source in self.sources:
            at = place if j is None else Place(place.module, source.start + j, place.key)
            name, layout = source.model.layout.names.get(at), source.model.layout
            own = name or (layout.embedding if place.is_head and place.is_vocabulary else None)
            if own is None:
                missing.append(source.model)
                continue
            rows = source.model.checkpoint.tensors[own]
            # a head that is the embedding goes by the name of the head
            inputs.append(Input(source.model.name, rows, name or place.key, source.rules, source.is_base))
        target = self._name(place, layer)
        if missing and not (place.is_vocabulary or place.is_head):
            if is_buffer(place.key):  # some versions stored it, and every runtime computes it again
                return
            raise BadInput(
                f"{self.where}: {missing[0].name} has no tensor for {target!r}, which {inputs[0].model} has",
                self._advice(missing[0].checkpoint),
            )
        t = 0.0 if j is None else j / (self.length - 1) if self.length > 1 else 1.0
        resolver = self.resolver
        if place.is_vocabulary and resolver.vocabulary is not None and resolver.vocabulary.size is not None:
            with naming(resolver.recipe.where, self.place):
                rearranged = resolver.vocabulary.embed({i.model: i.rows for i in inputs}, target)
            inputs = [Input(i.model, rearranged[i.model], i.name, i.rules, i.is_base) for i in inputs]
        self._check_shapes(target, place, inputs)
        with naming(resolver.recipe.where, self.place):
            merged = merged_tensor(resolver.recipe_for(inputs), target, inputs, self.shared_rules, t, resolver.options)
        if merged is not None:
            resolver.merge.tensors[target] = merged
        else:
            resolver.merge.warnings.append(f"{target!r} is left out: only {inputs[0].model} has it")

    def _name(self, place: Place, layer: int) -> str:
        """The output's name: as the first model would call it."""
        layout = self.resolver.first.layout
        if place.layer is not None:
            prefix = layout.prefixes.get(place.module) or self.sources[0].model.layout.prefixes[place.module]
            return f"{prefix}{layer}.{place.key}"
        if place.behind is not None:
            return f"{layout.prefixes[place.module]}{layer + place.behind[0]}.{place.behind[1]}"
        own = layout.names.get(place)
        return own or next(n for s in self.sources if (n := s.model.layout.names.get(place)))

    def _check_shapes(self, target: str, place: Place, inputs: Sequence[Input]) -> None:
        """All inputs of one shape."""
        first = inputs[0]
        for other in inputs[1:]:
            if other.rows.shape == first.rows.shape:
                continue
            message = (
                f"{target!r} has shape {list(first.rows.shape)} in {first.model} "
                f"and {list(other.rows.shape)} in {other.model}"
            )
            if place.is_vocabulary and first.rows.shape[1:] == other.rows.shape[1:]:
                raise BadInput(
                    f"{self.where}: {message}: the vocabularies differ",
                    "Add tokenizer: {source: union} to the recipe (or source: base, or one of the models).",
                )
            raise BadInput(f"{self.where}: {message}", "Only models of the same size can be merged.")


def _form_of_experts(names: Iterable[str]) -> str:
    """How a model has its experts, "" where it has none."""
    found = [name for name in names if _EXPERTS.search(name)]
    if any(_ONE_BY_ONE.search(name) for name in found):
        return "one by one"
    return "in one tensor" if found else ""


def _takes(method: Method, n: int, has_base: bool) -> bool:
    """Whether ``method`` is content with ``n`` models, and with or without a base beside them."""
    count = n + has_base if method.base == "ordinary" else n
    enough = method.least <= count and (method.most is None or count <= method.most)
    return enough and (has_base or method.base != "required")


def _architecture(checkpoint: Checkpoint) -> str | None:
    """What the model calls its architecture, if it says."""
    if checkpoint.metadata is not None:
        return str(checkpoint.metadata.get("general.architecture", "")) or None
    names = checkpoint.config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else None
