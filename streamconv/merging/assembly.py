"""One document of a recipe as a checkpoint: merged tensors, the donor's config with what changed, the files beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..metadata import Metadata, Value
from ..rows import Rows
from ..sources.checkpoint import Checkpoint, InputFile
from ..sources.mapped import MappedFile
from . import config_edit, side_files
from .keys import naming
from .layout import lay_out, module_section
from .methods import METHODS
from .opener import Opener
from .recipe import Recipe
from .references import parse_reference
from .resolving import Merge, Model, Resolver, is_plain_file, open_layouts
from .vocabulary import VocabularyPlan, differences, plan_vocabulary
from .vocabulary.settings import VocabularySettings

_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def assemble(recipe: Recipe, opener: Opener, path: Path, text: str) -> Checkpoint:
    """The checkpoint of one document.

    Parameters
    ----------
    path : the recipe file
    text : all of it
    """
    checkpoints = opener.models(recipe.references())
    models = open_layouts(checkpoints)
    named = _named(recipe, opener)
    plan = _vocabulary(recipe, checkpoints, named)
    if plan is None:
        opener.warnings += differences(checkpoints)
    options = replace(opener.options, stream=recipe.name or "")
    merge = Resolver(recipe, models, plan, options).resolve()
    donor = next(iter(models.values()))
    opener.warnings += [*(plan.warnings if plan else ()), *merge.warnings]
    config = _config(donor, merge, plan, opener.warnings)
    method = METHODS[recipe.method]
    side = side_files.collect(list(checkpoints.values()), plan.side if plan else None)
    if config:
        side[side_files.CONFIG] = side_files.config_text(config)
    if not all(is_plain_file(each) for each in checkpoints.values()):
        described = f"the method {method.title}" + (f" ({method.source})" if method.source else "")
        side |= side_files.cards(path.stem, described, opener.leaves, text)
    return Checkpoint(
        path=path,
        tensors=merge.tensors,
        config=config,
        inputs=inputs(path, {**checkpoints, **named}),
        metadata=_metadata(donor, merge, path.stem),
        warnings=opener.warnings,
        side=side,
        name=path.stem,
    )


def inputs(path: Path, checkpoints: Mapping[str, Checkpoint]) -> tuple[InputFile, ...]:
    """The recipe and the files of all models, each once."""
    recipe = MappedFile(path)
    files = (file for each in checkpoints.values() for file in each.inputs)
    return tuple({file.path: file for file in (recipe.describe(recipe.size), *files)}.values())


def state_dtype(config: config_edit.Section, tensors: Iterable[Rows]) -> None:
    """Say in ``config`` which type most tensors have."""
    floats = [rows.dtype for rows in tensors if rows.dtype in _NAMES]
    if floats:
        config_edit.set_dtype(config, _NAMES[max(sorted(set(floats)), key=floats.count)])


def _vocabulary(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], named: Mapping[str, Checkpoint]
) -> VocabularyPlan | None:
    """The plan for the vocabulary, where the recipe asks for one."""
    if recipe.vocabulary is None:
        return None
    base = str(recipe.base_model) if recipe.base_model else None
    others = [name for name in named if name not in checkpoints]
    with naming(recipe.where):
        return plan_vocabulary(recipe.vocabulary, {**checkpoints, **named}, base, others)


def _named(recipe: Recipe, opener: Opener) -> dict[str, Checkpoint]:
    """The models that the settings of the vocabulary name."""
    settings = recipe.vocabulary or VocabularySettings()
    texts = [rule.model for rule in settings.tokens.values() if rule.model is not None]
    if settings.source not in (None, "union", "base"):
        texts.insert(0, str(settings.source))
    return {text: opener.model(parse_reference(text, recipe.where, False, [])) for text in texts}


def _config(donor: Model, merge: Merge, plan: VocabularyPlan | None, warnings: list[str]) -> config_edit.Section:
    """The donor's config.json with what changed."""
    config = config_edit.copied(donor.checkpoint.config)
    if not config:
        return config
    config_edit.without_quantization(config)
    config.pop("_name_or_path", None)  # that names the donor
    state_dtype(config, merge.tensors.values())
    if merge.restacked:
        for module, layers in merge.layers.items():
            section = module_section(config, module)
            if isinstance(section, dict) and layers:
                origins = [(module_section(layer.model.checkpoint.config, module), layer.layer) for layer in layers]
                config_edit.restack(section, origins, warnings)
    if plan is not None:
        if plan.size is not None:
            config_edit.set_everywhere(config, "vocab_size", plan.size)
        for key, value in plan.config.items():
            config_edit.set_everywhere(config, key, value)
    if any(place.is_head and place.is_vocabulary for place in lay_out(merge.tensors, config).names):
        config_edit.untie(config)
    return config


def _metadata(donor: Model, merge: Merge, name: str) -> Metadata | None:
    """The keys of a GGUF donor with what changed; None where models are checkpoints."""
    before = donor.checkpoint.metadata
    if before is None:
        return None
    found = Metadata(dict(before.values))
    found.string("general.name", name)
    layers = merge.layers.get("default", [])
    if not merge.restacked or not layers:
        return found
    arch = before.get("general.architecture", "")
    count = before.get(f"{arch}.block_count")
    found.u32(f"{arch}.block_count", len(layers))
    for key, value in before.items():
        if value.type == "ARRAY" and key.startswith(f"{arch}.") and len(value.value) == count:
            sources = [(layer.model.checkpoint.metadata or before, layer.layer) for layer in layers]
            found.add(key, Value("ARRAY", [m.get(key, value.value)[i] for m, i in sources], value.elem))
    return found
