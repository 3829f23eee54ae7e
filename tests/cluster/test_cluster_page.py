"""What docs/cluster.md shows is run, with a batch system and a name server that are scripts of the tests."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dask_processes import Processes, digests, wait_for

import streamconv
from streamconv import errors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"


def block(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(tmp_path)
    yield found
    found.close()


def manifest() -> dict[tuple[str, str], dict[str, Any]]:
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(block("kubernetes"))}


def pod(kind: str, name: str) -> dict[str, Any]:
    template: dict[str, Any] = manifest()[kind, name]["spec"]["template"]
    return template


def test_the_manifest_hangs_together() -> None:
    found = manifest()
    service = found["Service", "streamconv-scheduler"]["spec"]
    labels = pod("Deployment", "streamconv-scheduler")["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert (
        str(service["ports"][0]["port"])
        in pod("Deployment", "streamconv-scheduler")["spec"]["containers"][0]["command"]
    )
    for kind, name in found:
        if kind in ("Deployment", "Job"):
            template = pod(kind, name)
            volumes = {v["name"] for v in template["spec"].get("volumes", ())}
            assert {m["name"] for c in template["spec"]["containers"] for m in c.get("volumeMounts", ())} == volumes
            policy = found["NetworkPolicy", "streamconv-only"]["spec"]["podSelector"]["matchLabels"]
            assert policy.items() <= template["metadata"]["labels"].items()
        if kind == "Deployment":
            selector = found[kind, name]["spec"]["selector"]["matchLabels"]
            assert selector.items() <= pod(kind, name)["metadata"]["labels"].items()


def test_the_job_is_not_restarted_where_that_would_mend_nothing() -> None:
    (rule,) = manifest()["Job", "streamconv-convert"]["spec"]["podFailurePolicy"]["rules"]
    codes = {
        e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.StreamconvError)
    }
    assert set(rule["onExitCodes"]["values"]) == codes - {69, 74, 75}


@pytest.mark.slow
def test_what_the_pods_run_works_together(processes: Processes, tmp_path: Path, tiny_model: Path) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed (pip install streamconv[dask])")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "in").symlink_to(tiny_model)
    expected = tmp_path / "expected" / "out.gguf"
    expected.parent.mkdir()
    streamconv.convert(tiny_model, expected, type="IQ3_S")

    def command(kind: str, name: str) -> list[str]:
        words = pod(kind, name)["spec"]["containers"][0]["command"]
        here = {"tcp://streamconv-scheduler:8786": "tcp://127.0.0.1:18786", "8786": "18786", "8": "1"}
        given = [here.get(word, word).replace("/models/", f"{tmp_path}/models/") for word in words]
        return ["-m", *given, *(["--host", "127.0.0.1"] if given[0] == "dask" else [])]

    processes.start("scheduler", command("Deployment", "streamconv-scheduler"), cwd=tmp_path)
    processes.start("worker", command("Deployment", "streamconv-workers"), cwd=tmp_path)
    converting = processes.start("convert", command("Job", "streamconv-convert"), cwd=tmp_path)
    assert converting.wait(180) == 0, processes.log("convert")
    assert digests(tmp_path / "models") == digests(expected.parent)


@pytest.mark.slow
def test_the_workers_that_slurm_would_start_work(processes: Processes, tmp_path: Path, tiny_model: Path) -> None:
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue")
    tools = tmp_path / "bin"
    tools.mkdir()
    scripts = {
        "sbatch": 'for last; do :; done\ncp "$last" script.sh\nsed -i "s/--nthreads 8/--nthreads 1/" script.sh\n'
        "setsid bash script.sh >worker.log 2>&1 </dev/null &\necho $! >>pids\necho Submitted batch job $!",
        "scancel": 'for pid in "$@"; do kill -- -$pid 2>/dev/null; done; true',
        "squeue": "true",
    }
    for name, text in scripts.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    expected = tmp_path / "expected" / "out.gguf"
    expected.parent.mkdir()
    streamconv.convert(tiny_model, expected, type="IQ3_S")
    body = (
        block("slurm")
        .replace("jobs=10", "jobs=2")
        .replace('input("Enter ends the cluster. ")', "import time; time.sleep(300)")
    )
    body = body.replace(
        'scheduler_options={"dashboard": False}', 'scheduler_options={"dashboard": False, "host": "127.0.0.1"}'
    )
    (tmp_path / "slurm.py").write_text(f"if __name__ == '__main__':\n{textwrap.indent(body, '    ')}")
    env = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    try:
        processes.start("cluster", ["slurm.py"], env=env, cwd=tmp_path)
        wait_for(lambda: (tmp_path / "address").exists() and (tmp_path / "address").read_text())
        address = (tmp_path / "address").read_text()
        converting = processes.convert(
            str(tiny_model), str(tmp_path / "o.gguf"), "--type", "IQ3_S", "--cluster", address
        )
        assert converting.wait(180) == 0, processes.log("convert") + processes.log("cluster")
        assert digests(tmp_path)["o.gguf"] == digests(expected.parent)["out.gguf"]
        assert "#SBATCH" in (tmp_path / "script.sh").read_text()
        assert sys.executable in (tmp_path / "script.sh").read_text()
    finally:
        for pid in (tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else ():
            os.system(f"kill -9 -- -{int(pid)} 2>/dev/null")
