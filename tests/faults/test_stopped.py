"""A process that is stopped just before its output gets its name, whose folder goes meanwhile to another run."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from streamconv.engine import files

from . import jobs
from .injector import Fault, forked, run


def test_a_stopped_process_that_wakes_fails_and_the_other_publishes(bench: jobs.Bench) -> None:
    for replaces in (False, True):
        bench.clean()
        if replaces:
            assert bench.go().code == 0
        first = ["F16" if a == "BF16" else a for a in bench.command]
        log = bench.log.with_suffix(".first")

        def planted() -> None:
            real, stopped = files.rename_with, []

            def rename_with(flag: int, old: Path, new: Path) -> bool:
                if new == bench.out and not stopped:
                    stopped.append(new)
                    os.kill(os.getpid(), signal.SIGSTOP)
                return real(flag, old, new)

            files.rename_with = rename_with

        pid = forked([*first, "--update"], log, planted, lambda: None)
        _, status = os.waitpid(pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), log.read_text()
        shutil.rmtree(bench.job)
        command = [*bench.command, "--force"]
        assert run(command, bench.log, Fault(bench.calls // 2, "kill before")).code == -signal.SIGKILL
        commits = bench.commits()
        assert commits
        os.kill(pid, signal.SIGCONT)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 75, log.read_text()
        assert repr(bench.commits()) == repr(commits)
        assert not jobs.false_stamps(commits, bench.parts)
        assert bench.out.exists() == replaces
        result = run(command, bench.log)
        assert (result.code, "finished by earlier runs" in result.stderr) == (0, True), result.stderr
        assert jobs.contents(bench.root) == bench.right
