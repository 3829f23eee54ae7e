"""Recipe documents as they are written, into ``Recipe``; every structural mistake is refused here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BadInput
from .keys import check_keys, mapping, nearest, sequence
from .methods import METHODS
from .recipe import Parameters, Recipe, Slice, Source, Stack
from .references import ModelRef, parse_reference
from .settings import parse_setting
from .vocabulary.settings import TokenRule, VocabularySettings

_KEYS = (
    "merge_method", "models", "slices", "modules", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source",
    "tokenizer", "chat_template",
)  # fmt: skip
_TOKEN_SOURCES = (
    "Write source: MODEL, {kind: zero}, or {kind: model_token, model: MODEL, token: TEXT (or token_id: N)}."
)
_DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F32"}


class Parser:
    """Reads one document.

    Parameters
    ----------
    where : the document, for messages
    lenient : unknown keys are warnings
    warnings : what should be told is added here
    """

    def __init__(self, where: str, lenient: bool, warnings: list[str]) -> None:
        self.where = where
        self.lenient = lenient
        self.warnings = warnings
        self._parameter_names = {p.name for method in METHODS.ours().values() for p in method.parameters}

    def recipe(self, value: Any, text: str, named: bool = False) -> Recipe:
        """The recipe in ``value``; ``named``: it may have a ``name``, being one of several documents."""
        top = mapping(value, self.where)
        if "merge_method" not in top:
            raise BadInput(
                f"{self.where}: merge_method is missing", f"Name one of {', '.join(METHODS)}; or experts for a mixture."
            )
        self.check(top, (*_KEYS, "name") if named else _KEYS, self.where)
        method = top["merge_method"]
        if not isinstance(method, str) or method not in METHODS:
            raise BadInput(f"{self.where}: unknown merge_method {method!r}", nearest(str(method), METHODS))
        self._parameter_names |= {p.name for p in METHODS[method].parameters}
        stack, modules = self._contents(top)
        return Recipe(
            where=self.where,
            text=text,
            method=method,
            stack=stack,
            modules=modules,
            base_model=self.reference(top.get("base_model"), "base_model"),
            parameters=self._parameters(top.get("parameters"), "parameters"),
            dtype=self.dtype(top, "dtype"),
            out_dtype=self.dtype(top, "out_dtype"),
            vocabulary=self._vocabulary(top),
            name=self.name(top.get("name")),
        )

    def _at(self, place: str) -> str:
        return f"{self.where}: {place}"

    def check(self, value: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
        """Refuse keys that are not ``known``; see ``check_keys``."""
        check_keys(value, known, where, self.lenient, self.warnings)

    def _contents(self, top: Mapping[str, Any]) -> tuple[Stack | None, dict[str, Stack]]:
        """The one of ``models``, ``slices`` and ``modules`` that is given."""
        given = [key for key in ("models", "slices", "modules") if top.get(key) is not None]
        if len(given) != 1:
            found = f"{' and '.join(given)} given" if given else "neither models, slices nor modules is given"
            raise BadInput(f"{self.where}: {found}", "Give exactly one of models, slices and modules.")
        if given != ["modules"]:
            return self._stack(top, "", {}), {}
        modules = {}
        for name, value in mapping(top["modules"], self._at("modules")).items():
            place = f"modules.{name}"
            body = mapping(value, self._at(place))
            self.check(body, ("models", "slices", "parameters"), self._at(place))
            if (body.get("models") is None) == (body.get("slices") is None):
                raise BadInput(
                    f"{self._at(place)}: expected either models or slices", "Give exactly one of models and slices."
                )
            modules[name] = self._stack(
                body, f"{place}.", self._parameters(body.get("parameters"), f"{place}.parameters")
            )
        if not modules:
            raise BadInput(f"{self._at('modules')}: expected at least one module")
        return None, modules

    def _stack(self, body: Mapping[str, Any], prefix: str, parameters: Parameters) -> Stack:
        if body.get("models") is not None:
            place = f"{prefix}models"
            entries = sequence(body["models"], self._at(place))
            sources = tuple(self._source(entry, f"{place}[{i}]", False) for i, entry in enumerate(entries))
            return Stack((Slice(sources),), True, parameters)
        place = f"{prefix}slices"
        entries = sequence(body["slices"], self._at(place))
        return Stack(tuple(self._slice(entry, f"{place}[{i}]") for i, entry in enumerate(entries)), False, parameters)

    def _slice(self, value: Any, place: str) -> Slice:
        body = mapping(value, self._at(place))
        self.check(body, ("sources", "base_model", "parameters", "residual_weight"), self._at(place))
        if body.get("residual_weight") is not None:
            self.warnings.append(f"{self._at(place)}: residual_weight has no effect")
        sources = sequence(body.get("sources"), self._at(f"{place}.sources"))
        return Slice(
            tuple(self._source(entry, f"{place}.sources[{i}]", True) for i, entry in enumerate(sources)),
            self.reference(body.get("base_model"), f"{place}.base_model"),
            self._parameters(body.get("parameters"), f"{place}.parameters"),
        )

    def _source(self, value: Any, place: str, layered: bool) -> Source:
        body = mapping(value, self._at(place))
        self.check(
            body, ("model", "layer_range", "parameters") if layered else ("model", "parameters"), self._at(place)
        )
        reference = self.reference(body.get("model"), f"{place}.model")
        if reference is None:
            raise BadInput(f"{self._at(place)}: the entry names no model", "Write {model: PATH, parameters: {...}}.")
        layers = body.get("layer_range") if layered else None
        if layers is not None:
            if not isinstance(layers, list) or len(layers) != 2 or not all(type(n) is int for n in layers):
                raise BadInput(
                    f"{self._at(place)}.layer_range: {layers!r} is not [START, STOP]",
                    "It means layers START … STOP - 1.",
                )
            if not 0 <= layers[0] <= layers[1]:
                raise BadInput(
                    f"{self._at(place)}.layer_range: {layers} is negative", "It means layers START … STOP - 1."
                )
        parameters = self._parameters(body.get("parameters"), f"{place}.parameters")
        return Source(reference, (layers[0], layers[1]) if layers is not None else None, parameters)

    def reference(self, value: Any, place: str) -> ModelRef | None:
        """The model that ``value`` refers to; None for None."""
        return None if value is None else parse_reference(value, self._at(place), self.lenient, self.warnings)

    def _parameters(self, value: Any, place: str) -> Parameters:
        """Settings by name; names that no method has are unknown keys."""
        known = sorted(self._parameter_names)
        found = mapping(value, self._at(place))
        self.check(found, tuple(known), self._at(place))
        return {
            name: parse_setting(v, self._at(f"{place}.{name}"), self.lenient, self.warnings)
            for name, v in found.items()
            if name in known
        }

    def dtype(self, top: Mapping[str, Any], key: str) -> str | None:
        """The type that ``top[key]`` names, spelled as in safetensors; None where it is not given."""
        value = top.get(key)
        if value is None:
            return None
        name = value.removeprefix("torch.") if isinstance(value, str) else str(value)
        if name not in _DTYPES:
            raise BadInput(f"{self._at(key)}: {value!r} is not a float type", "Use bfloat16, float16 or float32.")
        if name == "float64":
            self.warnings.append(f"{self._at(key)}: float64 is computed as float32")
        return _DTYPES[name]

    def name(self, value: Any) -> str | None:
        """The name of a document."""
        if value is None or (isinstance(value, str) and value):
            return value
        raise BadInput(f"{self._at('name')}: {value!r} is not a name", "Write a word that other documents refer to.")

    def _vocabulary(self, top: Mapping[str, Any]) -> VocabularySettings | None:
        """``tokenizer``, ``tokenizer_source`` and ``chat_template``."""
        template = top.get("chat_template")
        if template is not None and not isinstance(template, str):
            raise BadInput(
                f"{self._at('chat_template')}: {template!r} is not text", "Write auto, a builtin name, or the template."
            )
        if top.get("tokenizer") is not None and top.get("tokenizer_source") is not None:
            raise BadInput(
                f"{self.where}: both tokenizer and tokenizer_source are given",
                "Keep tokenizer: {source: ...}; tokenizer_source is its older spelling.",
            )
        if top.get("tokenizer") is None:
            if top.get("tokenizer_source") is None:
                return VocabularySettings(chat_template=template) if template is not None else None
            return VocabularySettings(
                self._tokenizer_source(top["tokenizer_source"], "tokenizer_source"), {}, None, template
            )
        body = mapping(top["tokenizer"], self._at("tokenizer"))
        self.check(body, ("source", "tokens", "pad_to_multiple_of"), self._at("tokenizer"))
        source = self._tokenizer_source(body.get("source", "union"), "tokenizer.source")
        multiple = body.get("pad_to_multiple_of")
        if multiple is not None and (type(multiple) is not int or multiple < 1):
            raise BadInput(
                f"{self._at('tokenizer.pad_to_multiple_of')}: {multiple!r} is not a positive integer",
                "Write a number such as 64, or leave it out to keep the rows there are.",
            )
        tokens = mapping(body.get("tokens"), self._at("tokenizer.tokens"))
        rules = {token: self._token_rule(rule, f"tokenizer.tokens[{token!r}]") for token, rule in tokens.items()}
        return VocabularySettings(source, rules, multiple, template)

    def _tokenizer_source(self, value: Any, place: str) -> str:
        if value in ("union", "base"):
            return str(value)
        reference = self.reference(value, place)
        if reference is None:
            raise BadInput(f"{self._at(place)}: {value!r} is not union, base or a model")
        return str(reference)

    def _token_rule(self, value: Any, place: str) -> TokenRule:
        body = mapping(value, self._at(place))
        self.check(body, ("source", "force"), self._at(place))
        force, source = body.get("force", False), body.get("source")
        if not isinstance(force, bool):
            raise BadInput(f"{self._at(place)}.force: {force!r} is neither true nor false", "Write true or false.")
        if source is None:
            return TokenRule(force=force)
        if not isinstance(source, Mapping) or "kind" not in source:
            return TokenRule("model", str(self.reference(source, f"{place}.source")), force=force)
        self.check(source, ("kind", "model", "token", "token_id"), self._at(f"{place}.source"))
        if source["kind"] == "zero":
            return TokenRule("zero", force=force)
        if source["kind"] != "model_token":
            raise BadInput(
                f"{self._at(place)}.source.kind: {source['kind']!r} is neither model_token nor zero", _TOKEN_SOURCES
            )
        model = self.reference(source.get("model"), f"{place}.source.model")
        token, number = source.get("token"), source.get("token_id")
        if model is None or (token is None) == (number is None):
            raise BadInput(
                f"{self._at(place)}.source: expected a model and exactly one of token and token_id", _TOKEN_SOURCES
            )
        if not (token is None or isinstance(token, str)) or not (
            number is None or (type(number) is int and number >= 0)
        ):
            raise BadInput(f"{self._at(place)}.source: token is text, token_id a non-negative integer", _TOKEN_SOURCES)
        return TokenRule("model_token", str(model), token, number, force)
