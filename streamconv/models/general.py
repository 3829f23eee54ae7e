"""``general.*``: what a model is called, who made it, from what, and how it likes to be sampled.

Sources, each filling only what the ones before left open: an explicit override, README.md's front matter, the name
config.json remembers, the folder's name. Names follow the hub's habit ``Base-Name-7B-Instruct-v0.3``. Keys, order and
heuristics are those of llama.cpp's converter (gguf-py ``metadata.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import BadInput, raise_exhausted
from ..metadata import Metadata
from ..sources.checkpoint import Checkpoint
from ..sources.naming import shown

#: key -> (GGUF type, spellings in generation_config.json)
SAMPLING = {
    "sequence": ("STRING", ("sequence",)),
    "top_k": ("INT32", ("top_k",)),
    "top_p": ("FLOAT32", ("top_p",)),
    "min_p": ("FLOAT32", ("min_p",)),
    "xtc_probability": ("FLOAT32", ("xtc_probability",)),
    "xtc_threshold": ("FLOAT32", ("xtc_threshold",)),
    "temp": ("FLOAT32", ("temperature",)),
    "penalty_last_n": ("INT32", ("penalty_last_n",)),
    "penalty_repeat": ("FLOAT32", ("repetition_penalty", "penalty_repeat")),
    "mirostat": ("INT32", ("mirostat",)),
    "mirostat_tau": ("FLOAT32", ("mirostat_tau",)),
    "mirostat_eta": ("FLOAT32", ("mirostat_eta",)),
}
_LIMITS = {"INT32": 1 << 31, "FLOAT32": 3.4e38}
#: key -> spellings in the front matter of README.md, in the order of the file's keys
CARD_TEXT: Mapping[str, tuple[str, ...]] = {
    "name": ("name", "model_name"),
    "author": ("author", "model_author", "model_creator"),
    "version": ("version", "model_version"),
    "organization": ("organization", "model_organization"),
    "finetune": ("finetune", "model_finetune"),
    "basename": ("basename", "model_basename", "model_type"),
    "description": ("description", "model_description"),
    "quantized_by": (),
    "size_label": ("size_label", "model_size_label"),
    "license": ("license",),
    "license.name": ("license_name",),
    "license.link": ("license_link",),
    "url": (),
    "doi": (),
    "uuid": (),
    "repo_url": (),
    "source.url": ("url", "model_url"),
    "source.doi": ("doi", "model_doi"),
    "source.uuid": ("uuid", "model_uuid"),
    "source.repo_url": ("repo_url", "model_repo_url"),
}
CARD_LISTS: Mapping[str, tuple[str, ...]] = {"tags": ("tags", "pipeline_tag"), "languages": ("languages", "language")}
CARD_ORIGINS: Mapping[str, tuple[str, ...]] = {
    "base_model": ("base_model", "base_models", "base_model_sources"),
    "dataset": ("datasets", "dataset", "dataset_sources"),
}
_ORIGIN_KEYS = ("name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url")

_VERSION = re.compile(r"(v|iter)?\d+([.]\d+)*", re.IGNORECASE)
_ENCODING = re.compile(r"i?q\d(_\w)*|b?fp?(16|32)", re.IGNORECASE)
_SIZE = re.compile(r"(A|\d+x)?\d+([._]\d+)?[KMBT]\d?|small|mini|medium|large|x?xl", re.IGNORECASE)
_TUNING = re.compile(r"chat|instruct|vision|lora", re.IGNORECASE)
_UNTITLED = re.compile(r"v\d+(\.\d+)*|\d.*")


@dataclass(frozen=True)
class ModelId:
    """The parts of a model's name; each may be unknown."""

    name: str | None = None
    organization: str | None = None
    basename: str | None = None
    finetune: str | None = None
    version: str | None = None
    size_label: str | None = None


@dataclass
class _Part:
    text: str
    roles: set[str] = field(default_factory=set)


def parse_model_id(model_id: str | None, n_params: int = 0) -> ModelId:
    """Take a hub id or folder name apart.

    Parameters
    ----------
    n_params : parameters of the model, 0 if unknown, negative for an adapter; a size far from it is a context length

    >>> parse_model_id("mistralai/Mixtral-8x7B-v0.1").size_label
    '8x7B'
    """
    if model_id is None:
        return ModelId()
    if " " in model_id:  # a sentence, not an id
        return ModelId(name=model_id)
    organization, slash, name = model_id.partition("/")
    if not slash:
        organization, name = "", model_id
    if organization.startswith("."):
        organization = ""
    parts = [_classify(text, i, n_params) for i, text in enumerate(p for p in name.split("-") if p)]

    sizes = [p for p in parts if "size" in p.roles]
    if any(c.isdecimal() for p in sizes for c in p.text):
        for part in sizes:  # "mini" beside "4B" is not a size
            if part.text.isalpha():
                part.roles.remove("size")
    _find_base(parts)

    basename = _joined(p.text for p in parts if "base" in p.roles)
    size = _joined(dict.fromkeys(p.text for p in parts if "size" in p.roles))
    finetune = _joined(p.text for p in parts if "finetune" in p.roles)
    version = _joined(p.text for p in parts if "version" in p.roles and "base" not in p.roles)
    if size is None and finetune is None and version is None:
        basename = None
    return ModelId(name, organization or None, basename, finetune, version, size)


def _classify(text: str, position: int, n_params: int) -> _Part:
    if _VERSION.fullmatch(text):
        return _Part(text, {"version"})
    if _ENCODING.fullmatch(text):
        return _Part(text.upper(), {"encoding"})
    if position > 0 and _SIZE.fullmatch(text):
        return _sized(text.replace("_", "."), n_params)
    if position > 0 and _TUNING.fullmatch(text):
        redundant = n_params < 0 and text.lower() == "lora"
        return _Part(text, {"encoding" if redundant else "finetune"})
    return _Part(text)


def _sized(text: str, n_params: int) -> _Part:
    """A size label in its usual spelling, or a context length if the model is nowhere near that size."""
    if text[-1].isdecimal():  # bloom-7b1
        text = f"{text[:-2]}.{text[-1]}{text[-2]}"
    if len(text) > 1 and text[-2].isdecimal() and text[-1] in "kmbt":
        text = text[:-1] + text[-1].upper()
    try:
        labelled = float(text[:-1]) * 1000.0 ** " KMBT".find(text[-1])
    except ValueError:  # 8x7B, A3B, mini
        return _Part(text, {"size"})
    if n_params < 0:
        odd = labelled < -n_params // 8  # an adapter need not cover all layers
    else:
        odd = n_params > 0 and abs(labelled - n_params) > 7 * n_params // 8
    return _Part(text[:-1] + text[-1].lower(), {"finetune"}) if odd else _Part(text, {"size"})


def _find_base(parts: list[_Part]) -> None:
    """Leading words and versions are the base name, later words a fine-tune; a version at its end stands alone."""
    leading = True
    for part in parts:
        leading = leading and ("version" in part.roles or (not part.roles and part.text[0].isalpha()))
        if leading:
            part.roles.add("base")
        elif not part.roles:
            part.roles.add("finetune")
    for part in reversed(parts):
        if "base" not in part.roles or len(part.roles) == 1:
            break
        part.roles.remove("base")


def _joined(texts: Any) -> str | None:
    return "-".join(texts) or None


def title(name: str) -> str:
    """A name as one writes it in a heading.

    >>> title("gemma-2-9b-it"), title("Model-v2")
    ('Gemma 2 9b It', 'Model v2')
    """
    words = name.replace("-", " ").split()
    return " ".join(w.title() if w.islower() and not _UNTITLED.fullmatch(w) else w for w in words)


def size_label(n_params: int, n_shared: int = 0, n_expert: int = 0, n_experts: int = 0) -> str:
    """A parameter count as people say it.

    Parameters
    ----------
    n_params : all parameters
    n_shared, n_expert : of a mixture: outside the experts, and in one expert of every layer
    n_experts : experts per layer, 0 for a dense model

    >>> size_label(1235814400), size_label(46702792704, 1605000000, 5637000000, 8)
    ('1.2B', '8x7.2B')
    """
    if n_experts > 0:
        return f"{n_experts}x{_rounded(abs(n_shared) + abs(n_expert))}"
    return _rounded(abs(n_params))


def _rounded(count: int) -> str:
    units = (("T", 1e12, 1e-12), ("B", 1e9, 1e-9), ("M", 1e6, 1e-6), ("K", -1.0, 1e-3))
    unit, scale = next((unit, scale) for unit, limit, scale in units if count > limit)
    digits = len(str(round(count * scale)).lstrip("0"))
    return f"{count * scale:.{max(2 - digits, 0)}f}{unit}"


def general_metadata(
    checkpoint: Checkpoint,
    *,
    kind: str = "model",
    model_name: str | None = None,
    n_params: int = 0,
    n_shared: int = 0,
    n_expert: int = 0,
    n_experts: int = 0,
    overrides: Mapping[str, Any] | None = None,
    warnings: list[str] | None = None,
) -> Metadata:
    """The keys from ``general.type`` to ``general.languages``.

    Parameters
    ----------
    kind : ``model``, ``adapter`` or ``mmproj``
    model_name : ``general.name``, whatever the files say
    n_params, n_shared, n_expert, n_experts : of the tensors that are written, see ``size_label``; 0 parameters or an
        adapter get no label
    overrides : GGUF key -> value, null to leave it out; ``general.base_models`` and ``general.datasets`` are lists of objects
    warnings : gets what could not be used

    Raises
    ------
    BadInput : an override has a value of the wrong type
    """
    notes = warnings if warnings is not None else []
    given = dict(overrides or {})
    card = _model_card(checkpoint, notes)
    signed = -n_params if kind == "adapter" else n_params
    texts = _texts(checkpoint, card, signed)
    if model_name is not None:
        given["general.name"] = model_name
    texts |= {key: given[f"general.{key}"] or "" for key in CARD_TEXT if f"general.{key}" in given}
    texts["name"] = texts["name"] or checkpoint.name or checkpoint.folder.resolve().name
    if not texts.get("size_label") and signed > 0:
        texts["size_label"] = size_label(n_params, n_shared, n_expert, n_experts)

    metadata = Metadata()
    metadata.string("general.type", kind)
    _write_sampling(metadata, checkpoint, given, notes)
    for key in CARD_TEXT:
        metadata.string(f"general.{key}", _text(texts.get(key, "")))
    for key, origin_spellings in CARD_ORIGINS.items():
        entries = given.get(f"general.{key}s", _origins(card, origin_spellings, signed))
        if entries is not None:
            _write_origins(metadata, key, entries)
    for key, list_spellings in CARD_LISTS.items():
        values = given.get(f"general.{key}", [v for s in list_spellings for v in _as_list(card.get(s))])
        metadata.array(f"general.{key}", "STRING", [_text(v) for v in _as_list(values)])
    return metadata


def _model_card(checkpoint: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """The YAML between README.md's first line ``---`` and the next one; {} when there is none or it is broken."""
    try:
        lines = (checkpoint.text("README.md") or "").splitlines()
        if not lines or lines[0] != "---":
            return {}
        from ..sources.hostile_yaml import parse_documents  # a reader that most checkpoints on disk need not load

        end = lines.index("---", 1) if "---" in lines[1:] else len(lines)
        text = "\n".join(lines[1:end]) + "\n"
        # "no" is Norwegian here, not false; and some cards are indented with tabs
        cards, _ = parse_documents(text.replace("- no\n", '- "no"\n').replace("\t", "  "))
    except (ValueError, OSError) as e:  # it is not YAML
        raise_exhausted(e)
        notes.append(f"README.md's front matter is ignored: it {e}")
        return {}
    except BadInput as e:
        raise_exhausted(e)
        notes.append(f"README.md's front matter is ignored: {e.message}")
        return {}
    return cards[0] if len(cards) == 1 and isinstance(cards[0], dict) else {}


def _texts(checkpoint: Checkpoint, card: Mapping[str, Any], n_params: int) -> dict[str, str]:
    """Key -> text from the card, then config.json, then the folder's name."""
    texts: dict[str, str] = {}
    for key, spellings in CARD_TEXT.items():
        for spelling in spellings:
            value = card.get(spelling)
            if value is not None and key not in texts:
                texts[key] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    remembered = checkpoint.config.get("_name_or_path")
    ids = [checkpoint.name or checkpoint.folder.resolve().name]
    if isinstance(remembered, str) and remembered.count("/") <= 1:  # more is a path on the author's machine
        ids.insert(0, remembered)
    for model_id in ids:
        found = parse_model_id(model_id, n_params)
        for key in ("basename", "finetune", "version", "size_label"):
            texts[key] = texts.get(key) or getattr(found, key) or ""
        for key in ("name", "organization"):
            texts[key] = texts.get(key) or title(getattr(found, key) or "")
    return texts


def _write_sampling(metadata: Metadata, checkpoint: Checkpoint, given: Mapping[str, Any], notes: list[str]) -> None:
    try:
        config = checkpoint.json("generation_config.json") or {}
    except (OSError, BadInput) as e:
        raise_exhausted(e)
        notes.append(f"generation_config.json is ignored: {getattr(e, 'message', e)}")
        config = {}
    for key, (type_, spellings) in SAMPLING.items():
        name = f"general.sampling.{key}"
        value = given.get(name, next((config[s] for s in spellings if config.get(s) is not None), None))
        if value is None:
            continue
        if type_ == "STRING":
            metadata.string(name, _text(value))
        elif isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LIMITS[type_]:
            notes.append(f"{name} is {shown(repr(value))}, not a number that can be used: ignored")
        elif type_ == "INT32":
            metadata.i32(name, int(value))
        else:
            metadata.f32(name, value)


def _origins(card: Mapping[str, Any], spellings: tuple[str, ...], n_params: int) -> list[dict[str, Any]] | None:
    """Base models or data sets as objects; None when the card has no such key."""
    present = [s for s in spellings if s in card]
    return [_origin(entry, n_params) for entry in _as_list(card[present[0]])] if present else None


def _origin(entry: Any, n_params: int) -> dict[str, Any]:
    if isinstance(entry, Mapping):
        return dict(entry)
    if not isinstance(entry, str):
        return {}
    is_url = entry.startswith(("http://", "https://", "ssh://"))
    on_hub = re.fullmatch(r"https?://huggingface\.co/([^/]+/[^/]+)", entry)
    if is_url and on_hub is None:
        return {"repo_url": entry}
    found = parse_model_id(on_hub[1] if on_hub else entry, n_params)
    origin: dict[str, Any] = {"repo_url": entry} if is_url else {}
    if found.name:
        origin["name"] = title(found.name)
    if found.organization:
        origin["organization"] = title(found.organization)
        origin.setdefault("repo_url", f"https://huggingface.co/{found.organization}/{found.name}")
    if found.version:
        origin["version"] = found.version
    return origin


def _write_origins(metadata: Metadata, key: str, entries: Any) -> None:
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise BadInput(f"general.{key}s is not a list of objects")
    metadata.u32(f"general.{key}.count", len(entries))
    for i, entry in enumerate(entries):
        for name in _ORIGIN_KEYS:
            if entry.get(name) is not None:
                metadata.string(f"general.{key}.{i}.{name}", _text(entry[name]))


def _text(value: Any) -> str:
    """``value`` as text a file can hold: folder names may be bytes of some older encoding."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
