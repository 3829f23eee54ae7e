"""Arguments in, exit code out; no logic."""

from __future__ import annotations

import argparse
import difflib
import errno
import faulthandler
import io
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
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
from .limits import allow_many_files, require_room_for_numpy, use_no_threads_of_libraries
from .terminal import say, say_json, show_traceback

#: a full disk, a spent quota, a limit of the shell
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_EPILOG = """\
exit codes: 0 done, 64 usage, 65 bad input data, 66 input missing, 69 network, 70 our bug, 73 cannot create output,
74 I/O error, disk full, or no memory, threads or open files left, 75 try again (locked, --stop-after reached), 77 permission,
78 plan differs from the unfinished job

Running the same command again goes on where it stopped; when it is done it says so and exits 0 at once.
"""


#: what a person may name as a source
_SOURCE = (
    "checkpoint folder, file of weights (.safetensors, .gguf, .bin, .pt, .pth, .ckpt), merge recipe .yml, or"
    " org/model[@revision] on the hub"
)


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse a mistyped option here, where the options of the command are known, not those of the program."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=1, cutoff=0.75)
            self.error(f"unknown argument {unknown[0]}" + (f", did you mean {near[0]}?" if near else ""))
        return found, unknown

    def error(self, message: str) -> NoReturn:
        command = self.prog.removeprefix("streamconv").strip()
        raise UsageError(f"{command}: {message}" if command else message, f"{self.prog} --help lists what it takes.")


def _seconds(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``15m``, ``2h`` or ``1h30m``.

    >>> _seconds("2h"), _seconds("1h30m"), _seconds("90")
    (7200.0, 5400.0, 90.0)
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    if not match or not any(match.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 90s, 15m or 2h")
    hours, minutes, seconds = (float(g or 0) for g in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _size(text: str) -> int:
    from .engine.budget import parse_size

    return parse_size(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _hub(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that may fetch."""
    add = parser.add_argument_group("models on the hub").add_argument
    add("--offline", action="store_true", help="never ask the network; use what is here")
    add(
        "--refresh",
        action="store_true",
        help="ask where the branch is now, instead of what it was when first asked for",
    )


def _layers(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of block numbers such as 3,4,5") from None


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="JSON on stdout instead of text")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def _job(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that plan a conversion."""
    parser.add_argument("source", metavar="SRC", help=_SOURCE)
    parser.add_argument("output", metavar="OUT", help="name of the output: NAME.gguf, or a folder for safetensors")
    add = parser.add_argument_group("types").add_argument
    add(
        "--type",
        default="auto",
        metavar="TYPE",
        help="file type such as Q4_K_M or auto (default); A,B with OUT 'x-{type}.gguf'",
    )
    add("--tensor-type", action="append", default=[], metavar="REGEX=TYPE", help="type of tensors whose name matches")
    add("--tensor-type-file", metavar="FILE", help="REGEX=TYPE words, one rule each")
    add("--output-tensor-type", metavar="TYPE", help="type of output.weight")
    add("--token-embedding-type", metavar="TYPE", help="type of token_embd.weight")
    add("--leave-output-tensor", action="store_true", help="keep output.weight as it is")
    add("--pure", action="store_true", help="the same type for every matrix")
    add("--imatrix", action="append", default=[], metavar="FILE", help="importance matrix; may be repeated")
    add("--include-weights", action="append", default=[], metavar="NAME", help="use only these imatrix entries")
    add("--exclude-weights", action="append", default=[], metavar="NAME", help="ignore these imatrix entries")
    add("--allow-requantize", action="store_true", help="quantize tensors again that are quantized already")
    add("--copy", action="store_true", help="keep every tensor's type (GGUF input)")
    add("--prune-layers", type=_layers, default=(), metavar="N,N", help="leave blocks out (GGUF input)")
    add("--override-kv", action="append", default=[], metavar="KEY=TYPE:VALUE", help="set a key (GGUF input)")
    add("--compat", choices=["ggml"], help="reproduce the defects of ggml's quantizers too")
    add = parser.add_argument_group("model").add_argument
    add("--pre", metavar="NAME", help="BPE pre-tokenizer, when it is not recognised")
    add("--model-name", metavar="NAME", help="general.name of the output")
    add("--vocab-only", action="store_true", help="metadata and tokenizer, no tensors")
    add("--mmproj", action="store_true", help="the vision projector instead of the text model")
    add("--allow-nonfinite", action="store_true", help="convert NaN and Inf instead of refusing them")
    add("--split-max-size", type=_size, default=0, metavar="SIZE", help="write shards of at most this size, such as 4G")
    add("--split-max-tensors", type=_positive, default=0, metavar="N", help="write shards of at most N tensors")
    add("--keep-split", action="store_true", help="cut the output where the input is cut (GGUF input)")
    add(
        "--max-shard-size", type=_size, default=5_000_000_000, metavar="SIZE",
        help="write safetensors shards of at most this size (default 5G)",
    )  # fmt: skip
    add = parser.add_argument_group("merge recipes").add_argument
    add("--seed", type=int, default=0, metavar="N", help="seed of the random methods (default 0)")
    add("--lenient", action="store_true", help="unknown keys of a recipe are warnings, not errors")
    add("--allow-crimes", action="store_true", help="merge models of different architectures")
    _running(parser)


def _running(parser: argparse.ArgumentParser) -> None:
    """Options of memory, threads and inputs."""
    add = parser.add_argument_group("running").add_argument
    add(
        "--ram",
        type=_size,
        metavar="SIZE",
        help="memory to allocate, such as 512MiB (default: a quarter, at most 2GiB)",
    )
    add("--threads", type=_positive, metavar="N", help="worker threads (default: all cores)")
    add("--io", choices=["mmap", "pread"], default="mmap", help="how inputs are read; pread for unreliable media")
    add("--chunk-size", type=_size, metavar="SIZE", help="most bytes a kill can cost per thread (default 16MiB)")
    _hub(parser)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--evict", action="store_true", help="give fetched bytes back once what was made of them is durable"
    )
    choice.add_argument("--keep", action="store_true", help="keep what is fetched for later runs (default)")


def _convert_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("resuming").add_argument
    add("--stop-after", type=_seconds, metavar="TIME", help="stop in order after 90s, 15m, 2h …; exit code 75")
    add(
        "--force",
        action="store_true",
        help="replace OUT, a single file whoever made it, or an unfinished job that was planned differently",
    )
    add(
        "--update",
        action="store_true",
        help="replace an OUT that streamconv made, or such a job, when inputs or options have changed; for pipelines",
    )
    add(
        "--verify-on-resume", choices=["all", "recent", "none"], default="all",
        help="finished chunks to read back before they are trusted (default: all)",
    )  # fmt: skip
    add("--nice", action="store_true", help="lowest priority for processor and disk")
    add("--report", metavar="FILE", help="write type, hash and error of every tensor as JSON lines")
    add("--dry-run", action="store_true", help="print the plan, write nothing")


def _extract_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``extract-lora``."""
    parser.add_argument("base", metavar="BASE", help=f"the model that was tuned: {_SOURCE}")
    parser.add_argument("tuned", metavar="TUNED", help="what became of it, named in the same ways")
    parser.add_argument("output", metavar="OUT", help="name of the adapter's folder")
    add = parser.add_argument_group("adapter").add_argument
    add(
        "--rank", "--max-rank", type=_positive, default=128, metavar="N",
        help="rank of the factors, where a matrix is not smaller (default 128)",
    )  # fmt: skip
    add(
        "--distribute-scale", action=argparse.BooleanOptionalAction, default=True,
        help="both factors take the root of the singular values (default), not A all of them",
    )  # fmt: skip
    add("--embed-lora", action="store_true", help="factors for embeddings too, instead of saving them whole")
    add("--save-module", action="append", default=[], metavar="NAME", help="save these modules whole; may be repeated")
    add("--include-regex", metavar="REGEX", help="only modules whose path has a match")
    add("--exclude-regex", metavar="REGEX", help="no modules whose path has a match")
    add("--sv-epsilon", type=float, default=0.0, metavar="X", help="leave out singular values up to X (default 0)")
    add("--skip-undecomposable", action="store_true", help="leave out what no adapter can express")
    add("--type", default="auto", metavar="TYPE", help="F32, F16 or BF16 (default: factors F32, the rest as it is)")
    _running(parser)
    _convert_options(parser)


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="streamconv",
        description="Convert model checkpoints to GGUF in one pass, in bounded memory, resumably.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        _common(sub)
        return sub

    convert = command("convert", "convert SRC to OUT; the same command again goes on where it stopped")
    _job(convert)
    _convert_options(convert)
    merge = command("merge", "merge models by a recipe, RECIPE.yml; OUT and everything else as for convert")
    _job(merge)
    _convert_options(merge)
    _extract_options(command("extract-lora", "extract a LoRA adapter that turns BASE into TUNED; resumes like convert"))
    _job(command("plan", "show what convert would do: tensors, types, bytes, memory, disk; writes nothing"))
    fetch = command("fetch", "fetch a model of the hub, so that later commands need no network; resumes like convert")
    fetch.add_argument(
        "source", metavar="ORG/MODEL", help="org/model[@revision], or one file of it: org/model/FILE.gguf"
    )
    _hub(fetch)
    add = fetch.add_argument_group("running").add_argument
    add("--all", action="store_true", help="every file, not only what a conversion needs")
    add("--verify", action="store_true", help="read what is here against its digests; fetch again what is damaged")
    add("--stop-after", type=_seconds, metavar="TIME", help="stop in order after 90s, 15m, 2h …; exit code 75")
    add("--nice", action="store_true", help="lowest priority for processor and disk")
    status = command("status", "show how far the job for OUT is")
    status.add_argument("output", metavar="OUT", help="the name given to convert")
    verify = command("verify", "read a finished output, or what was fetched, again and compare it with what it was")
    verify.add_argument(
        "output",
        metavar="OUT",
        nargs="?",
        help="the name given to convert, or one file of the output; compared with its record",
    )
    verify.add_argument(
        "--store", action="store_true", help="all models fetched from the hub, compared with their digests"
    )
    verify.add_argument(
        "--stop-after", type=_seconds, metavar="TIME", help="with --store: stop after 90s, 15m, 2h …; exit code 75"
    )
    inspect = command("inspect", "list tensors, metadata and tokenizer of a model")
    inspect.add_argument("source", metavar="SRC", help=_SOURCE)
    _hub(inspect)
    check = command("check", "predict what a loader will reject or get wrong")
    check.add_argument("source", metavar="FILE.gguf", help="the file, or the first of a split model")
    check.add_argument("--no-scan", action="store_true", help="skip looking for NaN and Inf in the data")
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
            return _main(argv)
        finally:
            _let_go_of_standard_streams()
    except MemoryError:  # even for telling what ran out
        return _without_memory()


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
        return 0  # nobody listens any more to what is printed after the work; that is not our error
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
    """The error of a failed system call that nobody knew how to tell."""
    if not isinstance(e, OSError):
        return None
    if e.errno in _NO_ROOM and e.filename is None:  # files have errors of their own
        return WriteFailed(f"the result cannot be printed: {e.strerror}", "Free some space, or print it elsewhere.")
    if e.errno == errno.ENAMETOOLONG:
        written = (getattr(options, name, None) for name in ("output", "report"))
        if any(_is_about(path, os.path.abspath(str(e.filename))) for path in written if path):
            return CannotCreate(f"{e.filename}: no file can have so long a name", "Choose a shorter one.")
        return unreadable(e.filename, e)
    return None


def _is_about(output: str, path: str) -> bool:
    """Whether ``path`` is ``output``, a folder above it, or what lies in or beside it under a name that begins with its."""
    begins = os.path.abspath(output).partition("{type}")[0].removesuffix(".gguf")
    return path.startswith(begins) or begins.startswith(path)


def _bug(e: Exception) -> StreamconvError:
    hint = "This is a bug of streamconv; run again with --debug and report it."
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
