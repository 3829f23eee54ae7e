"""Values of keys as a user writes them, in the types that GGUF has."""

from __future__ import annotations

import json
import re
from typing import Any

from ..errors import UsageError
from ..metadata import VALUE_TYPES, BadValue, Metadata, Value

#: words for types besides their own names in any case
_WORDS = {
    "u8": "UINT8", "i8": "INT8", "u16": "UINT16", "i16": "INT16", "u32": "UINT32", "i32": "INT32", "u64": "UINT64",
    "i64": "INT64", "f32": "FLOAT32", "f64": "FLOAT64", "str": "STRING",
}  # fmt: skip
_KNOWN = ("string", "bool", *(word for word in _WORDS if word != "str"))
_LIST = "[]"
_WHOLE = re.compile(r"[+-]?(\d+|0[xX][0-9a-fA-F]+)")


def named_type(word: str) -> tuple[str, str]:
    """The type that ``word`` stands for, and that of the elements of an array.

    >>> named_type("u32"), named_type("float32"), named_type("string[]")
    (('UINT32', ''), ('FLOAT32', ''), ('ARRAY', 'STRING'))
    """
    plain = word.removesuffix(_LIST)
    found = _WORDS.get(plain.lower(), plain.upper())
    if found not in VALUE_TYPES or found == "ARRAY":
        raise UsageError(f"{word!r} is no type of a key", f"Types are {', '.join(_KNOWN)}, and TYPE[] for an array.")
    return ("ARRAY", found) if word.endswith(_LIST) else (found, "")


def type_word(type_: str, elem: str = "") -> str:
    """The word for a type that messages use.

    >>> type_word("UINT32"), type_word("ARRAY", "STRING")
    ('u32', 'string[]')
    """
    if type_ == "ARRAY":
        return type_word(elem) + _LIST
    return next((word for word, name in _WORDS.items() if name == type_ and word != "str"), type_.lower())


def parse_value(key: str, text: str, type_: str, elem: str = "") -> Value:
    """``text`` as a value of a type: a text as it is, a number, ``true`` or ``false``, an array as a JSON list.

    Raises
    ------
    UsageError : it is not one, or does not fit the type; names the key

    >>> parse_value("a.b", "0x10", "UINT32"), parse_value("a.b", "[1, 2]", "ARRAY", "INT8")
    (Value(type='UINT32', value=16, elem=''), Value(type='ARRAY', value=[1, 2], elem='INT8'))
    """
    if type_ == "ARRAY":
        value = Value("ARRAY", [_element(key, each, elem) for each in _listed(key, text)], elem)
    else:
        value = Value(type_, _scalar(key, text, type_))
    try:
        Metadata().add(key, value)
    except BadValue as e:
        raise UsageError(f"{e.message}, the type of this key") from None
    return value


def _scalar(key: str, text: str, type_: str) -> Any:
    if type_ == "STRING":
        return text
    try:
        if type_ == "BOOL":
            return {"true": True, "false": False}[text.strip().lower()]
        if type_.startswith("FLOAT"):
            return float(text)
        if _WHOLE.fullmatch(text.strip()):
            return int(text, 16 if "x" in text.lower() else 10)
    except (KeyError, ValueError):
        pass
    wanted = "true or false" if type_ == "BOOL" else "a number" if type_.startswith("FLOAT") else "a whole number"
    raise UsageError(f"{key}: {text!r:.80} is not {wanted}, and the key is of type {type_word(type_)}")


def _listed(key: str, text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise UsageError(f"{key}: {text!r:.80} is not a list, and the key is an array", "Write it as JSON: [1, 2, 3].")
    return found


def _element(key: str, found: Any, elem: str) -> Any:
    """An element of a JSON list, if it is of the kind that the array has."""
    is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
    fits = {"STRING": isinstance(found, str), "BOOL": isinstance(found, bool)}.get(
        elem, is_number and (elem.startswith("FLOAT") or isinstance(found, int))
    )
    if not fits:
        raise UsageError(f"{key}: {found!r:.80} is not of type {type_word(elem)}, that of the array's elements")
    return found


def shortened(value: Value | None) -> str:
    """A value for people, in one line.

    >>> shortened(Value("UINT32", 2)), shortened(Value("ARRAY", [1, 2], "INT8")), shortened(None)
    ('2', '[1, 2] (i8, 2 elements)', '(not there)')
    """
    if value is None:
        return "(not there)"
    if value.type == "ARRAY":
        n = len(value.value)
        first = [value.value[k] for k in range(min(n, 3))]
        listed = ", ".join(json.dumps(each, ensure_ascii=False) for each in first) + (", …" if n > len(first) else "")
        return f"[{_cut(listed)}] ({type_word(value.elem)}, {n:,} elements)"
    return _cut(json.dumps(value.value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:120]}… ({len(text):,} characters)"
