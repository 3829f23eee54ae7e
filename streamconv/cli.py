"""Arguments in, exit code out; no logic."""

from __future__ import annotations

import argparse
import errno
import faulthandler
import io
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from .errors import (
    CannotCreate,
    Interrupted,
    NoResources,
    Stopped,
    StreamconvError,
    TryAgain,
    UsageError,
    WriteFailed,
    exhausted,
    unreadable,
)
from .file_names import ENDINGS, around_fields
from .flags import COPIES, FLAGS, JOBS, PACKING, RUNS, Flag, add, read_flags
from .limits import allow_many_files, require_room_for_numpy, use_no_threads_of_libraries
from .terminal import say, say_json, show_traceback

#: a full disk, a spent quota, a limit of the shell
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_EPILOG = """\
exit codes: 0 done, 64 usage, 65 bad input data, 66 input missing, 69 network, 70 internal error, 73 cannot create output,
74 I/O error, disk full, or no memory, threads or open files left, 75 try again (locked, --stop-after reached), 77 permission,
78 plan differs from the unfinished job
"""
_RESUMES = (
    "\nRunning the same command again resumes where it stopped; once the output is complete it exits 0 at once.\n"
)


#: what a person may name as a source
_SOURCE = (
    f"checkpoint folder, weight file ({', '.join(ENDINGS)}), merge recipe .yml, or org/model[@revision] on the hub"
)
_JOB = (
    ("source", "SRC", _SOURCE),
    ("output", "OUT", "name of the output: NAME.gguf, NAME.sbs for gemma.cpp, or a folder for safetensors"),
)


#: name of a command -> what it does, and what it is given: attribute, what stands for it, what it is
_COMMANDS: dict[str, tuple[str, tuple[tuple[str, str, str], ...]]] = {
    "convert": ("convert SRC to OUT; the same command again resumes where it stopped", _JOB),
    "merge": ("merge models by a recipe, RECIPE.yml; OUT and everything else as for convert", _JOB),
    "extract-lora": (
        "extract a LoRA adapter that turns BASE into TUNED; resumes like convert",
        (
            ("base", "BASE", f"the base model: {_SOURCE}"),
            ("tuned", "TUNED", "the fine-tuned model, given in the same way"),
            ("output", "OUT", "name of the adapter's folder"),
        ),
    ),
    "plan": ("show what convert would do: tensors, types, bytes, memory, disk; writes nothing", _JOB),
    "edit": (
        "set, rename and remove keys of a GGUF file; writes OUT, or changes IN with --in-place",
        (
            ("source", "IN", "a .gguf file, of a split model the first"),
            ("output", "[OUT]", "name of the output, NAME.gguf; left out with --in-place"),
        ),
    ),
    "split": (
        "split a GGUF file, as gguf-split does (default: 128 tensors per shard); resumes like convert",
        (
            ("source", "IN", "a .gguf file, of a split model the first"),
            ("output", "OUT", "prefix of the names of the shards: OUT-00001-of-0000N.gguf"),
        ),
    ),
    "join": (
        "join the shards of a GGUF file, as gguf-split --merge does; resumes like convert",
        (
            ("source", "IN", "the first shard, NAME-00001-of-0000N.gguf"),
            ("output", "OUT", "name of the output, NAME.gguf"),
        ),
    ),
    "hash": (
        "print digests of each tensor and of all data of a GGUF file, as gguf-hash does",
        (("source", "FILE", "a .gguf file"),),
    ),
    "fetch": (
        "fetch a model from the hub, so that later commands need no network; resumes like convert",
        (("source", "ORG/MODEL", "org/model[@revision], or one file of it: org/model/FILE.gguf"),),
    ),
    "pack": (
        "pack a model to about two thirds of its size; every command reads a packed model as it is; resumes like convert",
        (
            ("source", "MODEL", "checkpoint folder, or a file of safetensors, GGUF or torch"),
            ("output", "OUT", "name of the packed model's folder"),
        ),
    ),
    "unpack": (
        "unpack a packed model to the same files, bit for bit; resumes like convert",
        (
            ("source", "PACKED", "folder of a packed model, or one .scpack file of it"),
            ("output", "OUT", "name of the folder of plain files"),
        ),
    ),
    "status": ("show the progress of the job for OUT", (("output", "OUT", "the name given to convert"),)),
    "verify": (
        "re-read a finished output, or fetched models, and compare with the recorded digests",
        (("output", "[OUT]", "the name given to convert, or one file of the output; compared with its record"),),
    ),
    "inspect": ("list tensors, metadata and tokenizer of a model", (("source", "SRC", _SOURCE),)),
    "check": (
        "predict what a loader will reject or get wrong",
        (("source", "FILE", "a .gguf file, of a split model the first, or a .sbs file"),),
    ),
    "imatrix": (
        "measure, on a text, how much each column of a model's matrices matters; or add importance matrices up, and convert them;"
        " resumes like convert",
        (
            ("source", "[SRC]", f"{_SOURCE}; left out where importance matrices are only added up"),
            ("output", "[OUT]", "name of the importance matrix: NAME.gguf or NAME.dat"),
        ),
    ),
    "compare": (
        "compare the predictions of models with those of a reference on a text: perplexity, KL divergence, probabilities;"
        " resumes with --work",
        (
            ("reference", "REFERENCE", f"the model that others are compared with: {_SOURCE}"),
            ("models", "MODEL...", "models to compare, each given in the same way"),
        ),
    ),
    "perplexity": ("the perplexity of a model on a text; resumes with --work", (("source", "MODEL", _SOURCE),)),
    "mix": (
        "choose tensor types for a file of a given size, from errors measured on a text; resumes like convert",
        (
            ("source", "SRC", _SOURCE),
            ("output", "LIST", "name of the list, for convert --tensor-type-file"),
        ),
    ),
    "families": ("list the architectures that can be converted", ()),
    "bench": ("measure how fast this machine quantizes, type by type; the first time takes longer", ()),
}


class _Parser(argparse.ArgumentParser):
    """The program, or one of its commands; of those that plan a conversion, targets may add options."""

    command = ""
    added: tuple[Flag, ...] = ()

    def add_options(self, flags: Iterable[Flag]) -> bool:
        """Take options of targets, where they are not known yet; whether there were any."""
        new = [flag for flag in flags if self.command in flag.commands and flag not in self.added]
        try:
            add(self, self.command, new)
        except argparse.ArgumentError as e:
            raise UsageError(
                f"two options have the same name: {e}", "Uninstall the package that adds one of them."
            ) from None
        self.added = (*self.added, *new)
        self.set_defaults(added=self.added)
        return bool(new)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse a mistyped option here, where the options of the command are known, not those of the program."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown and self.command in JOBS and self.add_options(_of_targets()):
            found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            import difflib

            flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=1, cutoff=0.75)
            self.error(f"unknown argument {unknown[0]}" + (f", did you mean {near[0]}?" if near else ""))
        return found, unknown

    def format_help(self) -> str:
        """The help, with the options that our own targets add."""
        if self.command in JOBS:
            folder = os.path.join(os.path.dirname(__file__), "conversion", "targets")
            for name in sorted(n for n in os.listdir(folder) if n.endswith(".py")):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    text = file.read()
                if "Flag(" in text:  # to run it would take as long as a conversion takes to begin
                    self.add_options(read_flags(text))
        return super().format_help()

    def print_help(self, file: Any = None) -> None:
        """Print the help, with the options that targets of other packages add, too."""
        if self.command in JOBS:
            from .found import installed

            if installed("streamconv.targets"):
                self.add_options(_of_targets())
        super().print_help(file)

    def error(self, message: str) -> NoReturn:
        command = self.prog.removeprefix("streamconv").strip()
        raise UsageError(f"{command}: {message}" if command else message, f"{self.prog} --help lists the arguments.")


def _of_targets() -> list[Flag]:
    """The options that targets add, ours and those of other packages."""
    from .commands import added

    return added()


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="streamconv",
        description="Convert model checkpoints to GGUF or to gemma.cpp's files in one pass, in bounded memory, resumably.",
        epilog=_EPILOG + _RESUMES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, (text, given) in _COMMANDS.items():
        resumes = name in (*RUNS, *COPIES, *PACKING, "fetch", "imatrix", "mix")
        sub = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", epilog=_EPILOG + _RESUMES * resumes,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.command = name
        for attribute, metavar, what in given:
            nargs = "?" if metavar.startswith("[") else "+" if metavar.endswith("...") else None
            sub.add_argument(attribute, metavar=metavar.strip("[]."), help=what, nargs=nargs)
        add(sub, name, FLAGS)
    return parser


def _ensure_standard_streams() -> None:
    """Fill closed descriptors 0 to 2, lest a data file gets one of them and a message ends up in it."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:  # Python found it closed
            setattr(sys, name, os.fdopen(fd, "r" if fd == 0 else "w", encoding="utf-8", closefd=False))


def _print_anything() -> None:
    """Let a name or a sign that the locale has no letters for come out escaped instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":  # else it knows already what to do
            stream.reconfigure(errors="backslashreplace")


def _report_error(error: StreamconvError, as_json: bool, silent: bool = False) -> None:
    if as_json:
        record: dict[str, Any] = {
            "event": "error", "status": type(error).__name__, "resumable": error.resumable, "exit_code": error.exit_code,
            "message": error.message, "done": error.progress[0], "total": error.progress[1], "bytes": error.progress[2],
            "next": error.hint,
        }  # fmt: skip
        with suppress(OSError):
            say_json(record)
    if not silent:
        with suppress(OSError):
            say(f"streamconv: {error.message}", *([f"  {error.hint}"] if error.hint else []), stream=sys.stderr)


def _let_go_of_standard_streams() -> None:
    """Drop what cannot be printed, lest Python ends with a code of its own when it finds it at exit."""
    for fd, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        try:
            with _interrupts_end_the_process():
                return _main(argv)
        finally:
            _let_go_of_standard_streams()
    except MemoryError:  # even for telling what ran out
        return _without_memory()


@contextmanager
def _interrupts_end_the_process() -> Iterator[None]:
    """Let SIGINT do what SIGTERM does, wherever no job catches it.

    A KeyboardInterrupt would be raised wherever the main thread is: in a callback of the compiler it is printed and lost, while a
    module is imported some of them make an ImportError of it. What a process leaves that ends at once is what any kill leaves.
    """
    changed = False
    # Only in the main thread; and where memory runs out, the enumerations of the signal module fail in ways of their own.
    with suppress(Exception):
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            changed = True
    try:
        yield
    finally:
        if changed:
            with suppress(Exception):
                signal.signal(signal.SIGINT, signal.default_int_handler)


def _without_memory() -> int:
    """Say so in a way that needs none; the exit code."""
    try:
        os.write(2, b"streamconv: there is not enough memory, not even to say for what\n")
    except (OSError, MemoryError):
        return NoResources.exit_code
    return NoResources.exit_code


def _main(argv: Sequence[str] | None) -> int:
    _ensure_standard_streams()
    _print_anything()
    with suppress(Exception):  # stderr may be something without a descriptor
        faulthandler.enable()
    with suppress(OSError, ValueError, AttributeError):  # SIGXFSZ arrives as EFBIG then, which is reported
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug, as_json = "--debug" in arguments, "--json" in arguments
    allow_many_files()
    use_no_threads_of_libraries()
    options = argparse.Namespace()
    try:
        options = make_parser().parse_args(arguments)
        if options.version:
            from importlib.metadata import version

            say(version("streamconv"))
            return 0
        if options.command is None:
            make_parser().print_help()
            return 64
        if getattr(options, "nice", False):
            from .engine.nice import be_nice

            be_nice()
        require_room_for_numpy()
        from . import commands

        code = int(getattr(commands, options.command.replace("-", "_"))(options))
        sys.stdout.flush()  # here, where what cannot be printed is told
        return code
    except Interrupted as e:
        _report_error(e, as_json)
        return _die_of(e.signum)
    except StreamconvError as e:
        if debug:
            show_traceback(type(e), e, e.__traceback__)
        if not isinstance(e, TryAgain):  # whatever was met when something ran out
            e = _with_progress(exhausted(e), e)
        asked_for = isinstance(e, Stopped) and "--quiet" in arguments  # no error: cron would mail it every night
        _report_error(e, as_json, silent=asked_for)
        return e.exit_code
    except BrokenPipeError:
        return 0  # the reader of stdout has gone after the work was done; that is not an error of ours
    except KeyboardInterrupt:
        return _die_of(signal.SIGINT)
    except Exception as e:
        if debug:
            show_traceback(type(e), e, e.__traceback__)
        error = exhausted(e) or _error_of_system(e, options) or _bug(e)
        _report_error(error, as_json)
        return error.exit_code


def _with_progress(error: StreamconvError | None, other: StreamconvError) -> StreamconvError:
    """``error`` in place of ``other``, if there is one."""
    if error is None:
        return other
    error.progress = other.progress
    return error


def _error_of_system(e: Exception, options: argparse.Namespace) -> StreamconvError | None:
    """The error of a failed system call that no other code translated."""
    if not isinstance(e, OSError):
        return None
    if e.errno in _NO_ROOM and e.filename is None:  # files have errors of their own
        return WriteFailed(
            f"the result cannot be printed: {e.strerror}", "Free some space, or redirect the output elsewhere."
        )
    if e.errno == errno.ENAMETOOLONG:
        written = (getattr(options, name, None) for name in ("output", "report"))
        if any(_is_about(path, os.path.abspath(str(e.filename))) for path in written if path):
            return CannotCreate(f"{e.filename}: the file name is too long", "Choose a shorter one.")
        return unreadable(e.filename, e)
    return None


def _is_about(output: str, path: str) -> bool:
    """Whether ``path`` is ``output``, a folder above it, or what lies in or beside it under a name that begins with its."""
    begins = around_fields(os.path.abspath(output))[0].removesuffix(".gguf").removesuffix(".sbs")
    return path.startswith(begins) or begins.startswith(path)


def _bug(e: Exception) -> StreamconvError:
    hint = "This is a bug in streamconv; run again with --debug and report it."
    return StreamconvError(f"unexpected {type(e).__name__}: {e}", hint)


def _die_of(signum: int) -> int:
    """End as the signal would have ended us, so that make, cron and systemd see what happened."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    return 128 + signum


if __name__ == "__main__":
    sys.exit(main())
