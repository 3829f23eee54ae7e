"""Write docs/cli.md from the parser and the error tree; ``--check`` fails when it is out of date."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from streamconv import errors
from streamconv.cli import make_parser
from streamconv.conversion import TARGETS
from streamconv.flags import FLAGS

TARGET = Path(__file__).resolve().parent / "cli.md"


_CLOSING = """
An interrupted run dies of the signal that stopped it (SIGINT, SIGTERM, SIGHUP) after it has committed what is done; a
second signal ends it at once. For systemd: `SuccessExitStatus=75`, `RestartPreventExitStatus=64 65 66 70 73 77 78`.

## `--json`

`convert --json` prints one JSON object per line on stdout: `message`, `start`, `progress` (`done`, `total`, `tensor`,
`left_s`, which is null until there is a rate, `rss_anon`), and last `done` or `error` with `status`, `resumable`, `done`,
`total`, `bytes` and `next`. `total` counts all bytes of the output's files.
"""


def text() -> str:
    """The whole page."""
    os.environ["COLUMNS"] = "100"
    parser = make_parser()
    parts = ["# Command line\n\nGenerated from the program by `docs/make_cli.py`.\n"]
    actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for name, sub in actions[0].choices.items():
        usage = sub.format_help().split("exit codes:")[0].rstrip()
        parts.append(f"## streamconv {name}\n\n```\n{usage}\n```\n")
    parts.append(
        "## Options that only some outputs take\n\nFor every other output they are refused.\n\n| output | options |\n|---|---|"
    )
    for target in TARGETS.ours().values():
        own = [flag for flag in FLAGS if flag.field in target.options] + [*target.flags]
        parts.append(f"| {target.title} | {', '.join(f'`{flag.name}`' for flag in own)} |")
    parts.append(
        "\n## Exit codes\n\n| code | error | when | resumable |\n|---|---|---|---|\n| 0 | | done, or nothing to do | |"
    )
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.StreamconvError)]
    for c in sorted(classes, key=lambda c: c.exit_code):
        when = (c.__doc__ or "").strip().splitlines()[0].rstrip(".")
        parts.append(f"| {c.exit_code} | `{c.__name__}` | {when} | {'yes' if c.resumable else 'no'} |")
    parts.append(_CLOSING)
    return "\n".join(parts)


if __name__ == "__main__":
    if "--check" in sys.argv:
        if TARGET.read_text() != text():
            sys.exit("docs/cli.md is out of date: run python docs/make_cli.py")
    else:
        TARGET.write_text(text())
