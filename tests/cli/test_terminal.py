"""What reaches a terminal is only shown: no name, text or answer from elsewhere can make it do anything."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import write_safetensors

import streamconv
from streamconv import terminal
from streamconv.progress import Bar, Lines

PACKAGE = Path(streamconv.__file__).parent
#: sets the title, clears the screen, moves the cursor, starts a new line, with one byte too, and turns text around
EVIL = "\x1b]0;own\x07\x1b[2J\x9b31m\r\nline\x08\x7f\u202egpj.\u2066\u200b\u2028end"
#: the same without what would be the ending of a file's name
EVIL_FILE = EVIL.replace(".", "")


def acted_on(text: str) -> set[str]:
    """Characters of ``text`` that a terminal, or who reads it, would not see as they are."""
    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


def is_harmless(*texts: str) -> None:
    for text in texts:
        assert not acted_on(text), text
        assert not re.search("^line", text, re.MULTILINE), f"a name began a line of its own: {text}"


def evil_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    tensors = {name: ("F32", np.ones((2, 2), "<f4")) for name in (f"a{EVIL}", "b")}
    write_safetensors(folder / "model.safetensors", tensors)
    config = {"architectures": [f"Arch{EVIL}"], "model_type": EVIL, "torch_dtype": "float32", EVIL: EVIL}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / f"NOTICE{EVIL_FILE}").symlink_to("/etc/hostname")
    return folder


@pytest.mark.parametrize("text", ["blk.0.ffn_up.weight", "größe 中文 🦙 → ±", "a  b", ""])
def test_plain_text_is_shown_as_it_is(text: str) -> None:
    assert terminal.plain(text) == text


def test_every_other_character_is_escaped_so_that_it_can_be_told() -> None:
    assert terminal.plain(EVIL) == (r"\x1b]0;own\x07\x1b[2J\x9b31m\r\nline\x08\x7f\u202egpj.\u2066\u200b\u2028end")
    for code in range(sys.maxunicode + 1):
        shown = terminal.plain(chr(code))
        assert not acted_on(shown)
        assert "\n" not in shown


@pytest.mark.parametrize("command", ["plan", "convert", "inspect"])
def test_names_in_a_model_do_nothing_to_the_terminal(command: str, run: Callable[..., Any], tmp_path: Path) -> None:
    model = evil_model(tmp_path / "models" / f"m{EVIL_FILE}")
    output = [] if command == "inspect" else [tmp_path / f"out{EVIL_FILE}"]
    done = run(command, model, *output)
    assert done.code == 0, done.err
    is_harmless(done.out, done.err)
    assert r"\x1b]0;own" in done.out
    assert r"\u202e" in done.out
    as_json = run(command, model, *output, "--json")
    is_harmless(as_json.out, as_json.err)
    assert json.dumps(EVIL_FILE)[1:-1] in as_json.out


@pytest.mark.parametrize(
    "arguments",
    [
        [EVIL], ["convert", EVIL], ["convert", EVIL, "x.gguf", f"--{EVIL}"], ["convert", f"./{EVIL}", "x.gguf"],
        ["convert", f"./{EVIL}.safetensors", "x"], ["plan", "MODEL", "x.gguf", "--type", EVIL], ["inspect", f"./{EVIL}"],
        ["check", f"{EVIL}.gguf"], ["status", f"{EVIL}.gguf"], ["merge", f"{EVIL}.yml", "x"], ["merge", EVIL, "x"],
        ["convert", "MODEL", "x.gguf", "--imatrix", EVIL], ["convert", "MODEL", "x.gguf", "--tensor-type-file", EVIL],
        ["convert", "MODEL", "x.gguf", "--stop-after", EVIL], ["convert", "MODEL", f"no/{EVIL}/x.gguf"],
        ["convert", "MODEL", "x.gguf", "--report", f"no/{EVIL}/r"], ["convert", "MODEL", "x.gguf", "--pre", EVIL],
        ["fetch", EVIL], ["convert", "MODEL", "x.gguf", "--tensor-type", f"({EVIL}=Q8_0"], ["convert", "EVIL", "x.gguf"],
    ],
    ids=lambda a: " ".join(a).replace(EVIL, "EVIL"),
)  # fmt: skip
def test_no_error_does_anything_to_the_terminal(
    arguments: list[str], here: Callable[..., Any], small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evil = evil_model(tmp_path / "evil")
    done = here(*(str(small) if a == "MODEL" else str(evil) if a == "EVIL" else a for a in arguments))
    assert done.code not in (0, 70)
    is_harmless(done.out, done.err)


def test_a_traceback_that_was_asked_for_does_nothing_either(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streamconv", "convert", f"./{EVIL}", "x.gguf", "--debug"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert ("Traceback" in done.stderr, done.returncode) == (True, 66)
    is_harmless(done.stdout, done.stderr)


def test_the_bar_of_a_terminal_shows_names_and_notes_escaped(tmp_path: Path) -> None:
    model = evil_model(tmp_path / "m")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 250, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "streamconv", "convert", str(model), str(tmp_path / "out")],
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end has closed
                break
            if not part:
                break
            seen += part
    os.close(ours)
    text = seen.decode()
    assert process.returncode == 0, text
    assert "%|" in text, "there was a bar"
    assert acted_on(text) <= {"\r", "\x1b"}
    assert set(re.findall("\x1b.{2}", text)) <= {"\x1b[A"}, "tqdm's own"
    assert not re.search("[\r\n]line", text)
    assert r"\x1b]0;own" in text


@pytest.mark.parametrize("kind", [Bar, Lines])
def test_reporters_escape_notes(kind: type[Bar | Lines], capsys: pytest.CaptureFixture[str]) -> None:
    reporter = kind(sys.stderr)
    reporter.message(f"note: {EVIL}")
    assert capsys.readouterr().err == f"note: {terminal.plain(EVIL)}\n"


def test_nothing_is_printed_anywhere_else() -> None:
    """Every way out is in ``terminal.py``; scripts that answer in JSON to their parent are not seen by anybody."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called != "print", f"{name}:{node.lineno} prints; use terminal.say"
            is_stream = re.fullmatch(r"(sys\.)?(stdout|stderr)\.(write|writelines)|.*stream\.write", called)
            assert not is_stream, f"{name}:{node.lineno} writes to a stream; use terminal.say"
            if called.endswith("_bar.write"):
                assert ast.unparse(node.args[0]).startswith("plain("), f"{name}:{node.lineno}"
