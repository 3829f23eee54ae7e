"""A recipe file as a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from ..errors import BadInput
from ..sources.checkpoint import Checkpoint, InputFile
from . import config_edit, side_files
from .methods import METHODS
from .parse import Parser
from .planning import Merge, Model, Options, Planner, open_layouts
from .recipe import Recipe
from .references import ModelRef, parse_reference
from .vocabulary_plan import VocabularyPlan, VocabularySettings
from .yaml_text import read_documents

Open = Callable[[str], Checkpoint]
#: raised whenever the same recipe would give other weights than before
ARITHMETIC = 1
_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class RecipeFile(InputFile):
    """The recipe as an input: what it says, the seed and the tokenizers decide the weights just as the models do.

    It is read once, so it may change afterwards.
    """

    def verify_unchanged(self) -> None:
        """Nothing to verify."""


@dataclass
class Opener:
    """Opens the models a recipe names, each once.

    Attributes
    ----------
    open_model, open_adapter : given the text of a reference
    lenient : unknown keys are warnings
    """

    open_model: Open
    open_adapter: Open
    options: Options = field(default_factory=Options)
    lenient: bool = False
    warnings: list[str] = field(default_factory=list)
    _models: dict[str, Checkpoint] = field(default_factory=dict)

    def model(self, reference: ModelRef) -> Checkpoint:
        """The model with its adapter applied."""
        if str(reference) not in self._models:
            self._models[str(reference)] = self._open(reference)
        return self._models[str(reference)]

    def _open(self, reference: ModelRef) -> Checkpoint:
        base = ModelRef(reference.path, reference.revision)
        if reference.lora is None:
            opened = self.open_model(reference.model)
            self.warnings.extend(f"{reference.model}: {text}" for text in opened.warnings)
            return opened
        from . import lora

        found = lora.with_adapter(self.model(base), self.open_adapter(reference.lora))
        self.warnings.extend(f"{reference}: {text}" for text in found.warnings)
        return found

    def models(self, references: Iterable[ModelRef]) -> dict[str, Checkpoint]:
        """All of ``references``, in their order."""
        return {str(reference): self.model(reference) for reference in references}


def open_recipe(
    path: Path,
    open_model: Open,
    *,
    open_adapter: Open | None = None,
    lenient: bool = False,
    seed: int = 0,
    allow_crimes: bool = False,
) -> Checkpoint:
    """Open the merge that the recipe ``path`` describes. Reads headers, configurations and tokenizers, no weights.

    Parameters
    ----------
    open_model : opens a model by its reference (a path as the recipe spells it, or ``id@revision``)
    open_adapter : the same for adapters; None: ``open_model``
    lenient : unknown keys are warnings, not errors
    seed : of the random methods
    allow_crimes : merge models of different architectures

    Returns
    -------
    Checkpoint : tensors are merged row sources; those with a ``prepare`` method need a pass over their inputs first, which
        ``read`` does if nobody calls ``prepare`` ahead

    Raises
    ------
    BadInput, UsageError, InputMissing, NoPermission : what is wrong with the recipe or its models, before any weight is read
    """
    documents = read_documents(path)
    opener = Opener(open_model, open_adapter or open_model, Options(seed=seed, allow_crimes=allow_crimes), lenient)
    (value, text), = documents
    recipe = Parser(str(path), lenient, opener.warnings).recipe(value, text)
    return open_document(recipe, opener, path)


def open_document(recipe: Recipe, opener: Opener, path: Path) -> Checkpoint:
    """The checkpoint of one document of the recipe file ``path``."""
    checkpoints = opener.models(recipe.references())
    models = open_layouts(checkpoints)
    plan = _vocabulary(recipe, opener, checkpoints)
    merge = Planner(recipe, models, plan, opener.options).plan()
    donor = next(iter(models.values()))
    warnings = [*opener.warnings, *(plan.warnings if plan else ()), *merge.warnings]
    config = _config(recipe, donor, merge, plan, warnings)
    side = side_files.collect(list(checkpoints.values()), plan.side if plan else None)
    if donor.checkpoint.config:
        side[side_files.CONFIG] = side_files.config_text(config)
    method = METHODS[recipe.method]
    side[side_files.README] = side_files.readme(
        path.stem, method.title, method.source, list(checkpoints), recipe.text
    )
    side[side_files.RECIPE] = recipe.text.encode()
    return Checkpoint(
        path=path,
        tensors=merge.tensors,
        config=config,
        inputs=_inputs(path, recipe, opener, checkpoints, plan),
        metadata=donor.checkpoint.metadata,
        warnings=warnings,
        side=side,
    )


def _vocabulary(recipe: Recipe, opener: Opener, checkpoints: Mapping[str, Checkpoint]) -> VocabularyPlan | None:
    """The plan for the vocabulary, where the recipe asks for one."""
    settings = recipe.vocabulary
    if settings is None:
        return None
    from . import vocabulary

    named = {text: opener.model(parse_reference(text, recipe.where, False, [])) for text in _named(settings)}
    base = str(recipe.base_model) if recipe.base_model else None
    found: VocabularyPlan = vocabulary.plan_vocabulary(settings, {**checkpoints, **named}, base)
    return found


def _named(settings: VocabularySettings) -> list[str]:
    """References that the settings name."""
    rules = [rule.model for rule in settings.tokens.values() if rule.model is not None]
    source = [] if settings.source in (None, "union", "base") else [str(settings.source)]
    return [*source, *rules]


def _config(
    recipe: Recipe, donor: Model, merge: Merge, plan: VocabularyPlan | None, warnings: list[str]
) -> config_edit.Section:
    """The donor's config.json with what changed."""
    config = config_edit.copied(donor.checkpoint.config)
    if not config:
        return config
    config_edit.without_quantization(config)
    floats = [rows.dtype for rows in merge.tensors.values() if rows.dtype in _NAMES]
    if floats:
        config_edit.set_dtype(config, _NAMES[max(sorted(set(floats)), key=floats.count)])
    if merge.restacked:
        for module, layers in merge.layers.items():
            section = config_edit.module_section(config, module)
            if isinstance(section, dict) and layers:
                origins = [
                    (config_edit.module_section(layer.model.checkpoint.config, module), layer.layer) for layer in layers
                ]
                config_edit.restack(section, origins, warnings)
    if plan is not None:
        if plan.size is not None:
            config_edit.set_everywhere(config, "vocab_size", plan.size)
        for key, value in plan.config.items():
            config_edit.set_everywhere(config, key, value)
    if any(place.is_head and place.is_vocabulary for place in _places(merge, config)):
        config_edit.untie(config)
    return config


def _places(merge: Merge, config: Mapping[str, object]) -> Iterable[object]:
    from .layout import lay_out

    return lay_out(merge.tensors, config).names


def _inputs(
    path: Path, recipe: Recipe, opener: Opener, checkpoints: Mapping[str, Checkpoint], plan: VocabularyPlan | None
) -> tuple[InputFile, ...]:
    """The recipe and the files of all models, each once."""
    digest = xxhash.xxh3_128(recipe.text.encode())
    digest.update(f"\0{ARITHMETIC}\0{opener.options.seed}\0".encode())
    if plan is not None:
        for text in side_files.vocabulary_texts(checkpoints.values()):
            digest.update(text)
    text = recipe.text.encode()
    own = RecipeFile(path.name, path, len(text), digest.hexdigest(), 0, 0, 0)
    files = {str(file.path): file for each in checkpoints.values() for file in each.inputs}
    return (own, *files.values())


__all__ = ["ARITHMETIC", "BadInput", "Opener", "RecipeFile", "open_document", "open_recipe"]
