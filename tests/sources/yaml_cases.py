"""Texts that are as bad as YAML gets, and a script that reads them: ``python yaml_cases.py NAME…`` prints what each took."""

from __future__ import annotations

import json
import resource
import sys
import time

M = 1 << 20


def chain(n: int, value: str) -> str:
    """Every line repeats the one before."""
    return "".join(f"k{i}: &a{i} {value.replace('@', f'a{i - 1}') if i else '{x: 1}'}\n" for i in range(n))


#: what is refused, with a part of what is said
REFUSED = {
    "merge keys that double": (chain(200, "{<<: [*@, *@]}"), "more than any recipe"),
    "merge keys that grow": (
        "".join(f"k{i}: &a{i}\n  <<: *a{i - 1}\n  y{i}: 1\n" if i else "k: &a0 {}\n" for i in range(4000)),
        "more than any recipe",
    ),
    "aliases that double": (chain(60, "[*@, *@]"), "more than any recipe"),
    "a long text, often": (f"a: &a {'x' * 1000}\nb: [{'*a, ' * 20_000}]", "more than any recipe"),
    "an alias in itself": ("a: &a [*a]", "contains itself"),
    "a merge of itself": ("a: &a\n  <<: *a", "contains itself"),
    "brackets": ("[" * M, "nests too deep"),
    "braces": ("{a: " * (M // 4), "nests too deep"),
    "dashes": ("- " * (M // 2), "nests too deep"),
    "questions": ("? " * (M // 2), "nests too deep"),
    "indents": ("\n".join(" " * i + "a:" for i in range(1400)), "nests too deep"),
    "many values": ("a: [" + "a," * (M // 2 - 10) + "]", "more than any recipe"),
    "many nested values": ("a: [" + ("[" * 40 + "]" * 40 + ",") * 12_000 + "]", "more than any recipe"),
    "many keys": ("".join(f"{i}:\n" for i in range(130_000)), "more than any recipe"),
    "many documents": ("--- a\n" * 170_000, "more than any recipe"),
    "a large file": ("#" * (M + 1), "over the limit"),
    "a number": ("a: " + "7" * 5000, "a number has 5000 characters"),
    "a number in hex": ("a: 0x" + "f" * 100_000, "a number has 100002 characters"),
    "a number of sixties": ("a: 1" + ":59" * 100_000, "a number has 300001 characters"),
    "a fraction of sixties": ("a: 1" + ":59" * 100_000 + ".5", "a number has 300003 characters"),
    "a tag for nothing": ("a: !!int ''", "not valid YAML at line 1|what its tag says"),
    "a truth that is none": ("a: !!bool maybe", "what its tag says"),
    "a day that is none": ("a: !!timestamp today", "what its tag says"),
    "a tag of Python": ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "a control character": ("a: \x00", "not valid YAML"),
}
#: what is read, however long it takes
READ = {
    "comments": "#\n" * (M // 2),
    "blank lines": "\n" * M,
    "a long text": "a: " + "x" * (M - 4),
    "escapes": 'a: "' + "\\x41" * (M // 4 - 3) + '"',
    "a block": "a: |\n" + "  x\n" * (M // 4 - 2),
    "a folded block": "a: >\n" + "  x\n" * (M // 4 - 2),
    "lines of one text": "a:\n" + "  x\n" * (M // 4 - 2),
    "values": "a: [" + "a," * 39_000 + "]\n" + "#" * 900_000,
    "nested values": "a: [" + ("[" * 50 + "]" * 50 + ",") * 750 + "]\n" + "\n" * 900_000,
    "pairs": "[" + "a: ," * 12_000 + "]\n" + "#\n" * 450_000,
    "anchors": "".join(f"- &{'a' * 40}{i} x\n" for i in range(19_000)),
    "an anchor of one name": f"- &{'a' * (M - 100)} x\n",
    "numbers that collide": "".join(f"{(2**61 - 1) * i}:\n" for i in range(1, 19_000)),
}


def main() -> None:
    from streamconv.sources.hostile_yaml import NotYaml, parse_documents

    for name in sys.argv[1:]:
        text = READ[name] if name in READ else REFUSED[name][0]
        parse_documents("a: 1")
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            parse_documents(text)
            said = ""
        except NotYaml as e:
            said = str(e)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(json.dumps({"said": said, "seconds": time.process_time() - began, "grown_mib": grown}))


if __name__ == "__main__":
    main()
