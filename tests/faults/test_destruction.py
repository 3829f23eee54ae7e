"""Whatever is asked for, nothing is changed or gone that no plan of ours made.

Every command, with every flag, over every kind of thing in its output's place, in a world full of other people's files: the
exit code is the documented one, and afterwards each of those files is the same one, with the same bytes, mode and time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from small_models import DATA

from streamconv import cli, conversion
from streamconv.commands import _options
from streamconv.conversion.provenance import job_of_gguf
from streamconv.engine import files
from streamconv.engine.job import Job

from .foreign import JOB, Facts, World, facts_of, forged, special, write_gguf

SLOW = pytest.mark.slow
FLAGS = ([], ["--update"], ["--force"], ["--update", "--force"])
#: exit codes by FLAGS
ALWAYS, NEVER, USAGE = (0, 0, 0, 0), (73, 73, 73, 73), (64, 64, 64, 64)
UPDATED, FORCED, DENIED = (73, 0, 0, 0), (73, 73, 0, 0), (77, 77, 77, 77)


@dataclass(frozen=True)
class Command:
    """How an output is made: ``words`` for the command line, ``other`` for what makes another of the same name."""

    name: str
    words: Callable[[World], list[object]]
    other: tuple[str, ...]
    #: the name of the output, and that of its first file
    output: str
    first: str

    def line(self, world: World, out: Path, *more: str) -> list[str]:
        verb, *sources = map(str, self.words(world))
        return [
            verb,
            *sources[: 2 if verb == "extract-lora" else 1],
            str(out),
            *sources[2 if verb == "extract-lora" else 1 :],
            *more,
        ]

    @property
    def is_folder(self) -> bool:
        return not self.first.endswith(".gguf")


_KV = ("--override-kv", "general.name=str:other")
FILE = Command("a file", lambda w: ["convert", w.base, "--copy"], _KV, "out.gguf", "out.gguf")
SHARDS = Command(
    "shards",
    lambda w: ["convert", w.base, "--copy", "--split-max-tensors", "2"],
    _KV,
    "out.gguf",
    "out-00001-of-00002.gguf",
)
TYPES = Command("types", lambda w: ["convert", w.base, "--type", "F16,BF16"], _KV, "out-{type}.gguf", "out-F16.gguf")
FOLDER = Command("a folder", lambda w: ["convert", w.model], ("--type", "F16"), "out", "out")
MERGE = Command("a merge", lambda w: ["merge", w.recipe], ("--type", "BF16"), "out", "out")
ADAPTER = Command(
    "an adapter",
    lambda w: ["extract-lora", w.model, w.tuned, "--rank", "2", "--threads", "1"],
    ("--type", "F16"),
    "out",
    "out",
)
WITH_FILES = (FILE, SHARDS, TYPES)
WITH_FOLDERS = (FOLDER, MERGE, ADAPTER)


@dataclass
class Case:
    """One thing in the output's place; kinds are functions that put it there and tell what is to happen."""

    world: World
    command: Command
    #: what stays as it is though the command succeeds
    foreign: set[Path] = field(default_factory=set)

    @property
    def out(self) -> Path:
        return self.world.spot / self.command.output

    @property
    def first(self) -> Path:
        return self.world.spot / self.command.first

    def run(self, *more: str) -> int:
        return main(*self.command.line(self.world, self.out, *more, "--quiet"))

    def make(self, *more: str) -> None:
        assert self.run(*more) == 0

    def unfinished(self, *more: str) -> None:
        words = self.command.line(self.world, self.out, *more)
        a = cli.make_parser().parse_args(words)
        if words[0] == "extract-lora":
            pytest.skip("an adapter is prepared in another way")
        Job.open(conversion.prepare(a.source, a.output, _options(a)).plan).close()


def main(*words: object) -> int:
    return cli.main([str(w) for w in words])


Kind = Callable[[Case], tuple[int, int, int, int]]


def absent(case: Case) -> tuple[int, int, int, int]:
    return ALWAYS


def finished(case: Case) -> tuple[int, int, int, int]:
    case.make()
    return ALWAYS


def finished_without_a_record(case: Case) -> tuple[int, int, int, int]:
    case.make()
    _drop_records(case)
    return ALWAYS


def of_another_plan(case: Case) -> tuple[int, int, int, int]:
    case.make(*case.command.other)
    return UPDATED


def of_another_plan_without_a_record(case: Case) -> tuple[int, int, int, int]:
    case.make(*case.command.other)
    _drop_records(case)
    return UPDATED


def edited(case: Case) -> tuple[int, int, int, int]:
    case.make()
    path = case.first / "config.json" if case.command.is_folder else case.first
    path = path if path.exists() else case.first / "adapter_config.json"
    path.write_bytes(path.read_bytes() + b" ")
    return FORCED


def edited_with_its_time_put_back(case: Case) -> tuple[int, int, int, int]:
    case.make(*case.command.other)
    path = case.first / "model.safetensors" if case.command.is_folder else case.first
    path = path if path.exists() else case.first / "adapter_model.safetensors"
    data, was = path.read_bytes(), path.stat()
    at = data.find(b"streamconv.job")
    path.write_bytes(data[:at] + b"S" + data[at + 1 :])
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    return FORCED


def unfinished(case: Case) -> tuple[int, int, int, int]:
    case.unfinished()
    return ALWAYS


def unfinished_of_another_plan(case: Case) -> tuple[int, int, int, int]:
    case.unfinished(*case.command.other)
    return 78, 0, 0, 0


def foreign_file(case: Case) -> tuple[int, int, int, int]:
    case.first.write_text("mine")
    return NEVER if case.command.is_folder else FORCED


def empty_file(case: Case) -> tuple[int, int, int, int]:
    case.first.touch()
    return NEVER if case.command.is_folder else FORCED


def foreign_model(case: Case) -> tuple[int, int, int, int]:
    write_gguf(case.first, 3)
    return NEVER if case.command.is_folder else FORCED


def model_with_our_key_copied_by_another_tool(case: Case) -> tuple[int, int, int, int]:
    write_gguf(case.first, 3, JOB, "quantized by somebody else")
    return NEVER if case.command.is_folder else FORCED


def foreign_file_with_the_record_of_another(case: Case) -> tuple[int, int, int, int]:
    case.make(*case.command.other)
    case.first.unlink()
    write_gguf(case.first, 3)
    return FORCED


def foreign_file_with_a_forged_record(case: Case) -> tuple[int, int, int, int]:
    case.first.write_text("mine")
    record = case.first.with_name(f".{case.first.name if case.command is TYPES else case.out.name}.streamconv")
    record.write_text(forged(case.out.name, case.first.name, "thesis.tex", "../thesis.tex"))
    return FORCED


def link_to_a_foreign_file(case: Case) -> tuple[int, int, int, int]:
    case.first.symlink_to(case.world.spot / "thesis.tex")
    return NEVER


def link_to_a_foreign_folder(case: Case) -> tuple[int, int, int, int]:
    case.first.symlink_to(case.world.spot / "empty")
    return NEVER


def dangling_link(case: Case) -> tuple[int, int, int, int]:
    case.first.symlink_to(case.world.spot / "nowhere")
    return NEVER


def link_to_the_finished_output(case: Case) -> tuple[int, int, int, int]:
    case.make()
    case.first.rename(case.first.with_name("moved"))
    case.first.symlink_to("moved")
    return NEVER


def link_to_what_is_read(case: Case) -> tuple[int, int, int, int]:
    case.first.symlink_to(case.world.model if case.command.is_folder else case.world.base)
    return USAGE


def hard_link_to_what_is_read(case: Case) -> tuple[int, int, int, int]:
    os.link(case.world.model / "model.safetensors" if case.command.is_folder else case.world.base, case.first)
    return USAGE


def fifo(case: Case) -> tuple[int, int, int, int]:
    special(case.first, "fifo")
    return NEVER


def socket(case: Case) -> tuple[int, int, int, int]:
    special(case.first, "socket")
    return NEVER


def device(case: Case) -> tuple[int, int, int, int]:
    if os.geteuid():
        pytest.skip("only root makes devices")
    special(case.first, "device")
    return NEVER


def empty_folder(case: Case) -> tuple[int, int, int, int]:
    case.first.mkdir()
    return ALWAYS if case.command.is_folder else NEVER


def foreign_folder(case: Case) -> tuple[int, int, int, int]:
    (case.first / "nested").mkdir(parents=True)
    (case.first / "nested" / "thesis.tex").write_text("the only copy")
    return NEVER


def folder_that_holds_an_empty_one(case: Case) -> tuple[int, int, int, int]:
    (case.first / "empty").mkdir(parents=True)
    return NEVER


def folder_that_holds_a_link(case: Case) -> tuple[int, int, int, int]:
    case.first.mkdir()
    (case.first / "config.json").symlink_to(case.world.model / "config.json")
    return USAGE if case.command in (FOLDER, MERGE) else NEVER


def finished_with_notes(case: Case) -> tuple[int, int, int, int]:
    case.make()
    (case.first / "README.txt").write_text("mine")
    return 0, 0, 73, 73


def of_another_plan_with_notes(case: Case) -> tuple[int, int, int, int]:
    case.make(*case.command.other)
    (case.first / ".notes").write_text("mine")
    return NEVER


def copied_without_times_and_record(case: Case) -> tuple[int, int, int, int]:
    case.make()
    _drop_records(case)
    for path in case.first.rglob("*"):
        os.utime(path, (0, 0) if path.suffix == ".json" else None)
    return UPDATED


def of_another_plan_with_a_card_and_without_a_record(case: Case) -> tuple[int, int, int, int]:
    case.make(*case.command.other)
    _drop_records(case)
    (case.first / "README.md").write_text("my model card")
    return NEVER


def of_another_plan_edited_without_a_record(case: Case) -> tuple[int, int, int, int]:
    case.make(*case.command.other)
    _drop_records(case)
    path = case.first / ("adapter_config.json" if case.command is ADAPTER else "config.json")
    path.write_text("{}")
    return NEVER


def foreign_folder_in_the_jobs_place(case: Case) -> tuple[int, int, int, int]:
    place = case.world.spot / f"{case.out.name}.streamconv"
    (place / "out" / "chapters").mkdir(parents=True)
    for name in ("out/chapters/one.tex", "plan.json", "data-1.part", "mine.tmp", "old-1", "replaced.json"):
        (place / name).write_text("mine")
    return NEVER


def foreign_folder_of_our_names_in_the_jobs_place(case: Case) -> tuple[int, int, int, int]:
    place = case.world.spot / f"{case.out.name}.streamconv"
    (place / "old").mkdir(parents=True)
    for name in ("lock", "index.wal", "plan.json", "data-1.part", "replaced.json", "old/a"):
        (place / name).write_text("mine")
    return NEVER


def foreign_lock_in_the_jobs_place(case: Case) -> tuple[int, int, int, int]:
    place = case.world.spot / f"{case.out.name}.streamconv"
    place.mkdir()
    (place / "lock").write_text("the key is under the mat" * 40)
    return NEVER


def finished_beside_a_foreign_folder_in_the_jobs_place(case: Case) -> tuple[int, int, int, int]:
    case.make()
    foreign_folder_in_the_jobs_place(case)
    case.foreign.add(case.world.spot / f"{case.out.name}.streamconv")
    return 0, 0, 73, 73


def foreign_file_in_the_jobs_place(case: Case) -> tuple[int, int, int, int]:
    (case.world.spot / f"{case.out.name}.streamconv").write_text("mine")
    return DENIED


def foreign_file_in_the_records_place(case: Case) -> tuple[int, int, int, int]:
    _record(case).write_text("mine")
    return NEVER


def link_in_the_records_place(case: Case) -> tuple[int, int, int, int]:
    _record(case).symlink_to(case.world.spot / "thesis.tex")
    return NEVER


def folder_in_the_records_place(case: Case) -> tuple[int, int, int, int]:
    _record(case).mkdir()
    return NEVER


def record_of_another_output(case: Case) -> tuple[int, int, int, int]:
    _record(case).write_text(forged("another", "another"))
    return FORCED


def _record(case: Case) -> Path:
    name = case.first.name if case.command is TYPES else case.out.name
    return case.world.spot / f".{name}.streamconv"


def _drop_records(case: Case) -> None:
    for path in [*case.world.spot.glob(".out*.streamconv")]:
        path.unlink()


ANYWHERE: tuple[Kind, ...] = (
    absent, finished, of_another_plan, of_another_plan_without_a_record, edited, edited_with_its_time_put_back,
    unfinished, unfinished_of_another_plan,
    foreign_file, link_to_a_foreign_file, link_to_a_foreign_folder, dangling_link, link_to_what_is_read, fifo, socket, device,
    empty_folder, foreign_folder, folder_that_holds_an_empty_one, foreign_folder_in_the_jobs_place, foreign_lock_in_the_jobs_place,
    foreign_folder_of_our_names_in_the_jobs_place, finished_beside_a_foreign_folder_in_the_jobs_place,
    foreign_file_in_the_jobs_place, foreign_file_in_the_records_place,
    link_in_the_records_place, folder_in_the_records_place, record_of_another_output, link_to_the_finished_output,
    finished_without_a_record,
)  # fmt: skip
OF_FILES: tuple[Kind, ...] = (
    empty_file, foreign_model, model_with_our_key_copied_by_another_tool, foreign_file_with_the_record_of_another,
    foreign_file_with_a_forged_record, hard_link_to_what_is_read,
)  # fmt: skip
OF_FOLDERS: tuple[Kind, ...] = (
    finished_with_notes, of_another_plan_with_notes, of_another_plan_with_a_card_and_without_a_record,
    of_another_plan_edited_without_a_record, folder_that_holds_a_link, copied_without_times_and_record,
)  # fmt: skip


#: those that took most to get right; the others are tried by `make test-all`
QUICK: tuple[Kind, ...] = (
    of_another_plan, edited, foreign_file, model_with_our_key_copied_by_another_tool, link_to_a_foreign_file, dangling_link,
    hard_link_to_what_is_read, empty_folder, foreign_folder, foreign_folder_in_the_jobs_place, foreign_file_in_the_records_place,
    of_another_plan_with_notes, of_another_plan_with_a_card_and_without_a_record,
)  # fmt: skip


def _cases() -> list[object]:
    found = []
    for command in (*WITH_FILES, *WITH_FOLDERS):
        for kind in (*ANYWHERE, *(OF_FOLDERS if command.is_folder else OF_FILES)):
            name = f"{command.name}: {kind.__name__}"
            found.append(pytest.param(command, kind, range(4), id=name, marks=SLOW))
            if command in (FILE, FOLDER) and kind in QUICK:
                found.append(pytest.param(command, kind, [1, 2], id=f"{name}, one flag"))
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    top = tmp_path_factory.mktemp("destruction")
    (top / "outside").mkdir()
    return World(top / "root")


@pytest.fixture
def place(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The world, with nothing of ours in it before and after."""
    monkeypatch.chdir(world.here)
    monkeypatch.setenv("STREAMCONV_CACHE", str(world.root / "cache" / "streamconv" / "models"))
    before = world.facts()
    yield world
    for path in world.spot.iterdir():
        if path not in before:
            _remove(path)
    assert touched(before, world.facts()) == []


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def touched(before: dict[Path, Facts], after: dict[Path, Facts], besides: Iterable[Path] = ()) -> list[Path]:
    """What was changed, has gone or has come, but for what lies in ``besides``."""
    changed = {p for p in {*before, *after} if before.get(p) != after.get(p)}
    return sorted(p for p in changed if not any(p == b or b in p.parents for b in besides))


def judge(case: Case, code: int, clean: dict[Path, Facts], *flags: str) -> Iterator[str]:
    """What is wrong about how the command ends: it may only touch what a plan of ours made, and only when it succeeds."""
    spot = case.world.spot
    before = case.world.facts()
    got = case.run(*flags)
    after = case.world.facts()
    if got != code:
        yield f"{flags}: ended with {got}, not {code}"
    ours = {p for p in {*before, *after} if p.parent == spot and p not in clean and p not in case.foreign}
    # A job that is looked at, and not gone on with, has been locked for a moment.
    locked = {spot / f"{case.out.name}.streamconv"} if got == 78 else set()
    yield from (f"{flags}: {p} was touched" for p in touched(before, after, ours if got == 0 else locked))
    if got == 0:
        left = [p for p in ours & after.keys() if p.suffix == ".streamconv" and p.is_dir()]
        yield from (f"{flags}: {p} was left" for p in left)


@pytest.mark.parametrize(("command", "kind", "tried"), _cases())
def test_nothing_is_touched_that_no_plan_of_ours_made(
    place: World, command: Command, kind: Kind, tried: Sequence[int]
) -> None:
    clean = place.facts()
    wrong = []
    for number in tried:
        case = Case(place, command)
        code = kind(case)[number]
        wrong += judge(case, code, clean, *FLAGS[number])
        for path in set(place.spot.iterdir()) - clean.keys():
            _remove(path)
    assert wrong == []


def _readers(world: World, out: Path) -> list[tuple[list[object], int]]:
    """Commands that only look, and how each ends where nothing but somebody's file has the name ``out``."""
    return [
        (["plan", world.base, out, "--copy"], 0),
        (["plan", world.recipe, out, "--type", "F16"], 65),  # no family that GGUF knows
        (["convert", world.base, out, "--copy", "--dry-run", "--force"], 0),
        (["merge", world.recipe, out.with_suffix(""), "--dry-run", "--update"], 0),
        (["extract-lora", world.model, world.tuned, out.with_suffix(""), "--rank", "1", "--dry-run"], 0),
        (["status", out], 0),
        (["verify", out], 66),
        (["inspect", out], 65),
        (["inspect", world.model], 0),
        (["check", out], 65),
        (["check", world.base], 65),
        (["fetch", "org/model", "--offline"], 69),
        (["convert", "org/model", out, "--offline", "--force"], 69),
    ]


def test_commands_that_only_look_touch_nothing_at_all(place: World, capfd: pytest.CaptureFixture[str]) -> None:
    out = place.spot / "looked-at.gguf"
    out.write_text("mine")
    before, time = place.facts(), place.spot.stat().st_mtime_ns
    for words, code in _readers(place, out):
        assert main(*words, *(["--quiet"] if words[0] not in ("status", "verify") else [])) == code, words
        assert (touched(before, place.facts()), place.spot.stat().st_mtime_ns) == ([], time), words


def _overlaps(w: World) -> list[list[object]]:
    """Commands that would write over, around or into what they read, or the current folder."""
    models, base = w.base.parent, w.base
    weights = w.model / "model.safetensors"
    gguf: list[object] = ["convert", base, w.spot / "out.gguf", "--copy"]
    return [
        ["convert", w.model, w.model],
        ["convert", w.model, models],
        ["convert", w.model, w.model / ".." / "src"],
        ["convert", w.model, w.root / "linked" / "src"],
        ["convert", w.model, w.root / "linked"],
        ["convert", w.root / "linked" / "src", models],
        ["convert", base, base, "--copy"],
        ["convert", base, w.root / "linked" / "base.gguf", "--copy"],
        ["convert", base, w.root / "hard.gguf", "--copy"],
        ["convert", w.root / "hard.gguf", base, "--copy"],
        ["convert", w.model, w.here],
        ["convert", w.model, w.root],
        ["convert", w.model, Path("..") / "here"],
        ["merge", w.recipe, w.root],
        ["merge", w.recipe, w.model],
        ["merge", w.recipe, w.tuned],
        ["merge", w.recipe, w.adapter],
        ["merge", w.recipe, w.adapter.parent],
        ["extract-lora", w.model, w.tuned, w.model],
        ["extract-lora", w.model, w.tuned, w.tuned],
        ["extract-lora", w.model, w.tuned, models],
        ["convert", w.model, w.model / "additional_chat_templates"],
        # what is kept beside an output
        ["convert", w.root / "job.streamconv", w.root / "job"],
        ["merge", w.root / "job.streamconv" / "recipe.yml", w.root / "job"],
        # reports
        *([*gguf, "--report", path] for path in (
            base, w.root / "hard.gguf", w.root / "linked" / "base.gguf", models, w.here,
            *(w.spot / n for n in ("out.gguf", "x/../out.gguf", "out.gguf.streamconv", ".out.gguf.streamconv")),
            w.spot / "out.gguf.streamconv" / "lock",
        )),
        *(["convert", w.model, w.spot / "out", "--report", path] for path in (
            weights, *(w.model / n for n in ("config.json", "report.jsonl")),
            *(w.spot / n for n in ("out", "out/report", ".out.streamconv")),
        )),
        ["merge", w.recipe, w.spot / "out", "--report", w.recipe],
        ["merge", w.recipe, w.spot / "out", "--report", w.adapter / "adapter_config.json"],
        [*gguf[:-1], "--type", "Q8_0", "--imatrix", w.imatrix, "--allow-requantize", "--report", w.imatrix],
        ["convert", base, w.imatrix_gguf, "--type", "Q8_0", "--imatrix", w.imatrix_gguf, "--allow-requantize"],
        [*gguf[:-1], "--type", "F16", "--tensor-type-file", w.rules, "--report", w.rules],
        ["convert", base, w.spot / "out-{type}.gguf", "--type", "F16,BF16", "--report", w.spot / "out-BF16.gguf"],
        ["convert", base, w.spot / "out-{type}.gguf", "--type", "F16,BF16", "--report", w.spot / ".out-F16.gguf.streamconv"],
        # names of ours
        ["convert", w.model, w.spot / "new.streamconv"],
        ["convert", w.model, w.spot / "notes.streamconv"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "flags", [["--update"], *(pytest.param(f, marks=SLOW) for f in FLAGS if f != ["--update"])], ids=str
)
def test_what_is_read_is_never_written_over_around_or_into(place: World, flags: list[str]) -> None:
    before = place.facts()
    for words in _overlaps(place):
        assert main(*words, *flags, "--quiet") == 64, words
        assert touched(before, place.facts()) == [], words


def test_outputs_and_reports_that_nobody_takes_for_parts_of_a_model_may_lie_beside_what_is_read(place: World) -> None:
    models = place.base.parent
    made = [place.model / n for n in ("new.gguf", ".new.gguf.streamconv", "new", ".new.streamconv")]
    made += [models / n for n in ("new.gguf", ".new.gguf.streamconv", "new.json")]
    made += [place.root / n for n in ("new", ".new.streamconv", "new.json")]
    before = place.facts()
    try:
        assert main("convert", place.base, place.model / "new.gguf", "--copy", "--quiet") == 0
        assert main("convert", place.model, place.model / "new", "--quiet") == 0
        assert (
            main("convert", place.base, models / "new.gguf", "--copy", "--quiet", "--report", models / "new.json") == 0
        )
        assert main("merge", place.recipe, place.root / "new", "--quiet", "--report", place.root / "new.json") == 0
        folders = [models, place.model, place.root]
        assert touched(before, place.facts(), made) == sorted(folders), "their times"
        assert main("convert", place.model, place.spot / "out", "--quiet") == 0
        assert not list(place.spot.glob("out/new*")), "no reader takes them for parts of the model"
    finally:
        for path in filter(os.path.lexists, made):
            _remove(path)
        for path in (models, place.model, place.root):
            os.utime(path, ns=(before[path][4], before[path][4]))


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def _killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let a run die in the place of its call number ``step`` of those that give, take or remove names; the calls."""
    calls: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: object, **kwargs: object) -> Any:
            if len(calls) == step:
                raise Killed
            calls.append(f"{name} {args}")
            return real(*args, **kwargs)

        return call

    for where, name in [*((os, n) for n in ("rename", "link", "unlink", "rmdir", "symlink")), (files, "rename_with")]:
        monkeypatch.setattr(where, name, counted(name, getattr(where, name)))
    return calls


def _files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _output(case: Case) -> dict[str, bytes]:
    """The files under final names."""
    found = (
        _files(case.out)
        if case.command.is_folder
        else {p.name: p.read_bytes() for p in case.world.spot.glob("out*.gguf")}
    )
    return {n: data for n, data in found.items() if n != "out-00002-of-00009.gguf"}


@pytest.mark.parametrize(("command", "then"), [
    (FILE, "the same"),
    *(pytest.param(c, then, marks=SLOW) for c in (FOLDER, SHARDS, TYPES, MERGE) for then in ("the same", "another")),
    pytest.param(FILE, "another", marks=SLOW),
], ids=lambda x: x if isinstance(x, str) else x.name)  # fmt: skip
def test_a_kill_while_an_output_is_replaced_costs_nothing_of_anybody(
    place: World, monkeypatch: pytest.MonkeyPatch, command: Command, then: str
) -> None:
    case, clean = Case(place, command), place.facts()
    third = (
        ()
        if then == "the same"
        else ("--type", "F32")
        if command in (FOLDER, MERGE)
        else ("--override-kv", "x.y=bool:true")
    )
    case.make(*third)
    last = _output(case)
    case.make(*command.other, "--force")
    old = _output(case)
    case.make("--force")
    new = _output(case)
    assert len({str(x) for x in (old, new)}) == 2
    step, ended = 0, False
    while not ended:
        case.make(*command.other, "--force")
        with monkeypatch.context() as patch:
            calls = _killed_at(step, patch)
            try:
                case.make("--update")
                ended = True
            except Killed:
                step += 1
        now = _output(case)
        if command in (FILE, FOLDER, MERGE):
            assert now in (old, new), f"after {calls[-2:]} the output is neither the old nor the new one"
        elif command is SHARDS:
            assert now in (old, new) or command.first not in now, f"after {calls[-2:]} a loader finds a mixture"
        assert case.run("--update", *third) == 0, f"after {calls[-2:]}"
        assert _output(case) == (last if third else new)
        ours = {p for p in place.facts() if p.parent == place.spot and p not in clean}
        assert touched(clean, place.facts(), ours) == []
        assert [p for p in ours if p.suffix == ".streamconv" and p.is_dir()] == []
    assert step > 10


def _report(report: Path) -> Iterator[tuple[str, Callable[[], object], tuple[int, int, int, int]]]:
    """Things in the place of a report that is no part of anything."""
    yield "nothing", lambda: None, ALWAYS
    yield "a report", lambda: report.write_text('{"name":"","type":"","sha256":"","nonfinite":0,"rmse":0}\n'), ALWAYS
    yield "an empty file", report.touch, ALWAYS
    yield "somebody's file", lambda: report.write_text("mine"), FORCED
    yield "somebody's JSON", lambda: report.write_text('{"name": 1}\n'), FORCED
    yield "a link", lambda: report.symlink_to("thesis.tex"), NEVER
    yield "a link to a report", lambda: (report.with_name("r").touch(), report.symlink_to("r")), NEVER
    yield "a dangling link", lambda: report.symlink_to("nowhere"), NEVER
    yield "a folder", report.mkdir, NEVER
    yield "a FIFO", lambda: special(report, "fifo"), NEVER
    yield "a socket", lambda: special(report, "socket"), NEVER


@SLOW
def test_a_report_replaces_nothing_but_a_report(place: World) -> None:
    report, clean = place.spot / "report", place.facts()
    for what, put, codes in _report(report):
        for flags, code in zip(FLAGS, codes, strict=True):
            put()
            before = place.facts()
            got = main("convert", place.base, place.spot / "out.gguf", "--copy", "--quiet", *flags, "--report", report)
            assert got == code, (what, flags)
            made = [report, place.spot / "out.gguf", place.spot / ".out.gguf.streamconv"] if code == 0 else []
            assert touched(before, place.facts(), made) == [], (what, flags)
            for path in set(place.spot.iterdir()) - clean.keys():
                _remove(path)


def test_a_report_does_not_replace_what_came_while_it_ran(place: World, monkeypatch: pytest.MonkeyPatch) -> None:
    report, real = place.spot / "report", conversion.execute

    def execute(*args: Any) -> Any:
        report.write_text("mine")
        return real(*args)

    monkeypatch.setattr(conversion, "execute", execute)
    assert main("convert", place.base, place.spot / "out.gguf", "--copy", "--quiet", "--report", report) == 73
    assert report.read_text() == "mine"


def test_a_report_whose_name_no_temporary_file_could_have_is_written(place: World) -> None:
    for n in (242, 255, 256):
        got = main(
            "convert", place.base, place.spot / "out.gguf", "--copy", "--quiet", "--report", place.spot / ("r" * n)
        )
        assert got == (0 if n <= 255 else 73)


@pytest.mark.parametrize(
    "name",
    [b"new\nline", *(pytest.param(n, marks=SLOW) for n in (
        b"\xff\xfe", b"-", b"\x1b[2J", b"a b'\"$(x)", b"{}", b"*?[a]", b"x" * 244, b".hidden",
    ))],
)  # fmt: skip
def test_any_name_can_be_made_replaced_and_verified(place: World, name: bytes) -> None:
    for ending, source, other in (("", place.model, ["--type", "F16"]), (".gguf", place.base, ["--copy", *FILE.other])):
        out = place.spot / (os.fsdecode(name[: 244 - len(ending)]) + ending)
        copy = [] if ending == "" else ["--copy"]
        before = place.facts()
        assert main("convert", source, out, *copy, "--quiet") == 0
        assert main("convert", source, out, *other, "--quiet") == 73
        assert main("convert", source, out, *other, "--update", "--quiet") == 0
        assert main("convert", source, out, *other, "--quiet") == 0
        assert main("verify", out, "--quiet") == 0
        made = set(place.spot.iterdir()) - before.keys()
        assert len(made) == 2
        assert touched(before, place.facts(), made) == []


def test_shards_that_were_joined_into_one_file_stay_then_and_later(place: World) -> None:
    out, shards = place.spot / "x.gguf", place.spot / "x-00001-of-00002.gguf"
    assert main("convert", place.base, out, "--copy", "--split-max-tensors", "2", "--quiet") == 0
    before = place.facts()
    assert main("convert", shards, out, "--copy", "--quiet") == 0
    assert main("convert", shards, out, "--copy", "--update", "--override-kv", "a.b=str:c", "--quiet") == 0
    assert main("convert", place.base, out, "--copy", "--update", "--quiet") == 0
    made = [out, place.spot / ".x.gguf.streamconv"]
    assert touched(before, place.facts(), made) == []


def test_a_model_that_another_tool_split_under_our_names_stays(place: World) -> None:
    out = place.spot / "x.gguf"
    assert main("convert", place.base, out, "--copy", "--quiet") == 0
    theirs = write_gguf(place.spot / "x-00001-of-00003.gguf", 0, JOB, "split by somebody else")
    ours = write_gguf(place.spot / "x-00002-of-00003.gguf", 0, JOB)
    before = [facts_of(theirs), facts_of(ours)]
    assert main("convert", place.base, out, "--copy", "--update", *FILE.other, "--quiet") == 0
    assert main("convert", place.base, out, "--copy", "--force", "--quiet") == 0
    assert [facts_of(theirs), facts_of(ours)] == before


def test_a_set_that_is_cut_differently_replaces_the_old_one_and_nothing_else(place: World) -> None:
    out = place.spot / "x.gguf"
    before = place.facts()
    assert main("convert", place.base, out, "--copy", "--split-max-tensors", "1", "--quiet") == 0
    assert main("convert", place.base, out, "--copy", "--split-max-tensors", "2", "--quiet") == 73
    assert main("convert", place.base, out, "--copy", "--split-max-tensors", "2", "--update", "--quiet") == 0
    assert sorted(p.name for p in place.spot.glob("x*")) == ["x-00001-of-00002.gguf", "x-00002-of-00002.gguf"]
    assert main("convert", place.base, out, "--copy", "--update", "--quiet") == 0
    assert sorted(p.name for p in place.spot.glob("x*")) == ["x.gguf"]
    assert touched(before, place.facts(), set(place.spot.iterdir()) - before.keys()) == []


def test_an_output_that_is_signed_again_says_so_last(place: World) -> None:
    """Else what is made of our own files would be taken for a copy by another tool."""
    first, out = place.spot / "first.gguf", place.spot / "out.gguf"
    assert main("convert", place.base, first, "--copy", "--quiet") == 0
    for more in ([], ["--override-kv", "a.b=str:c"]):
        assert main("convert", first, out, "--copy", "--quiet", "--update", *more) == 0
        (place.spot / ".out.gguf.streamconv").unlink()
        assert len(job_of_gguf(out)) == 64


def test_two_outputs_of_one_command_do_not_get_one_name(place: World) -> None:
    """``auto`` of a model in bfloat16 is BF16."""
    source, out = DATA / "checkpoints" / "mistral-spm" / "hf", place.spot / "x-{type}.gguf"
    assert main("convert", source, out, "--type", "BF16,auto", "--quiet") == 64
    assert list(place.spot.glob("x-*")) == []


def test_a_folder_without_a_record_that_holds_a_pipe_keeps_nobody_waiting(place: World) -> None:
    out = place.spot / "out"
    assert main("convert", place.model, out, "--type", "F16", "--quiet") == 0
    (place.spot / ".out.streamconv").unlink()
    special(out / "model-2.safetensors", "fifo")
    assert main("convert", place.model, out, "--update", "--quiet") == 73
    assert (out / "model-2.safetensors").is_fifo()


def test_in_a_folder_that_is_gone_everything_with_a_whole_name_works(
    place: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = place.spot / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main("convert", place.base, place.spot / "out.gguf", "--copy", "--quiet") == 0


def test_a_folder_of_somebody_in_the_jobs_place_is_no_unfinished_job(place: World) -> None:
    (place.spot / "out.gguf.streamconv").mkdir()
    (place.spot / "out.gguf.streamconv" / "plan.json").write_text("{}")
    assert main("status", place.spot / "out.gguf") == 66
    (place.spot / "out.gguf").write_text("mine")
    assert main("status", place.spot / "out.gguf") == 0
