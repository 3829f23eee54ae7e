"""What people have: tokens, mirrors, proxies, caches, and repositories that hold the same weights several times."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import sbs_files
from hub_cases import MODEL, WEIGHTS, in_hf_cache, tensor_bytes
from running import Run
from server import Ask, Fault, Hub, Status

import streamconv


class Relay:
    """Passes requests on: as a mirror that has the hub under a path, or as a proxy.

    Attributes
    ----------
    asked : what was asked of it
    """

    def __init__(self, hub: Hub, prefix: str) -> None:
        self.asked: list[str] = []
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                relay.asked.append(self.path)
                place = urlsplit(self.path if "://" in self.path else hub.url + self.path.removeprefix(prefix))
                if not self.path.startswith(prefix):
                    self.send_error(404)
                    return
                line = http.client.HTTPConnection(place.netloc)
                line.request(self.command, f"{place.path}?{place.query}", headers=dict(self.headers))
                answer = line.getresponse()
                body = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name not in ("Date", "Server"):
                        self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
                line.close()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def relay(hub: Hub) -> Iterator[Callable[[str], Relay]]:
    """Function that starts a relay for requests that begin with ``prefix``."""
    started: list[Relay] = []

    def start(prefix: str) -> Relay:
        started.append(Relay(hub, prefix))
        return started[-1]

    yield start
    for each in started:
        each.close()


def weights(hub: Hub, repo: str = MODEL) -> int:
    (files,) = hub.models[repo].values()
    return files[WEIGHTS].size


def fetched(hub: Hub) -> set[str]:
    return {path for path in hub.served if hub.bytes_served(path)}


@pytest.mark.parametrize("token", ["", "hf_of_somebody_else"])
def test_a_gated_model_says_where_to_accept_its_licence_and_how_to_log_in(
    hub: Hub, here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    def refuse(ask: Ask) -> Fault | None:
        return Status(403 if token else 401, {"X-Error-Code": "GatedRepo"}) if ask.at_hub else None

    monkeypatch.setenv("HF_TOKEN", token)
    hub.fault = refuse
    refused = here("convert", MODEL, tmp_path / "x.gguf", "--json")
    assert refused.code == 77
    assert f"{hub.url}/{MODEL}" in refused.err
    assert "licence" in refused.err
    assert ("HF_TOKEN" in refused.err) == (not token)
    assert json.loads(refused.out.splitlines()[-1])["exit_code"] == 77
    assert len(hub.requests) < 20, "what is final is not asked again and again"


@pytest.mark.parametrize("place", ["HF_HOME", pytest.param("HF_TOKEN_PATH", marks=pytest.mark.slow)])
def test_a_token_that_was_saved_by_logging_in_is_used(hub: Hub, run: Run, tmp_path: Path, place: str) -> None:
    hub.private_token = "hf_secret"
    file = tmp_path / "elsewhere" / "token"
    file.parent.mkdir()
    file.write_text("hf_secret\n")
    assert run("fetch", MODEL).code == 77
    assert run("fetch", MODEL, env={place: str(file if place == "HF_TOKEN_PATH" else file.parent)}).code == 0
    assert not hub.tokens


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", pytest.param("TRANSFORMERS_OFFLINE", marks=pytest.mark.slow)])
def test_the_environment_can_forbid_the_network(hub: Hub, run: Run, here: Run, tmp_path: Path, switch: str) -> None:
    env = {"HF_HUB_OFFLINE": "", switch: "1"}
    refused = run("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", env=env)
    assert refused.code == 69
    assert "offline" in refused.err
    assert hub.requests == []
    assert here("fetch", MODEL).code == 0
    hub.forget()
    assert run("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", env=env).code == 0
    assert hub.requests == []


def test_a_mirror_may_lie_under_a_path(
    hub: Hub, run: Run, relay: Callable[[str], Relay], tmp_path: Path, expected: bytes
) -> None:
    mirror = relay("/mirror/hf")
    done = run(
        "convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", env={"HF_ENDPOINT": f"{mirror.url}/mirror/hf/"}
    )  # fmt: skip
    assert done.code == 0, done.err
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert mirror.asked
    assert all(path.startswith("/mirror/hf/") for path in mirror.asked)


@pytest.mark.parametrize(
    "variable", ["HTTP_PROXY", *(pytest.param(v, marks=pytest.mark.slow) for v in ("http_proxy", "ALL_PROXY"))]
)
def test_everything_goes_through_a_proxy(
    hub: Hub,
    run: Run,
    relay: Callable[[str], Relay],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    proxy = relay("http://")
    done = run("fetch", MODEL, env={variable: proxy.url})
    assert done.code == 0, done.err
    assert hub.bytes_served(WEIGHTS) == weights(hub)
    assert len(proxy.asked) == len(hub.requests)
    assert any(path.startswith(hub.storage_url) for path in proxy.asked)


@pytest.mark.parametrize("name", ["HF_HUB_CACHE", pytest.param("HF_HOME", marks=pytest.mark.slow)])
def test_the_hubs_own_cache_is_read_where_it_cannot_be_written(
    hub: Hub, run: Run, tmp_path: Path, tiny_model: Path, expected: bytes, name: str
) -> None:
    root = tmp_path / "elsewhere"
    in_hf_cache(hub, root if name == "HF_HUB_CACHE" else root / "hub", tiny_model)
    folders = [root, *(p for p in root.rglob("*") if p.is_dir() and not p.is_symlink())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        done = run("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--offline", env={name: str(root)})
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert done.code == 0, done.err
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert hub.requests == []
    online = run("convert", MODEL, tmp_path / "y.gguf", "--type", "q8_0", env={name: str(root)})
    assert online.code == 0, online.err
    assert hub.bytes_served() == 0, "the hub was asked for names and digests only"


@pytest.fixture
def crowded(hub: Hub, tiny_model: Path, tmp_path: Path) -> dict[str, int]:
    """``org/crowded``, which holds its weights in every form there is; name -> size of what no conversion needs."""
    folder = shutil.copytree(tiny_model, tmp_path / "crowded")
    useless = [
        "pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.safetensors", "tf_model.h5", "logo.png",
        "flax_model.msgpack", "model-q4_k.gguf", "original/consolidated.00.pth", "onnx/model.onnx", "training_args.bin",
        "original/tokenizer.model",
    ]  # fmt: skip
    sizes = {}
    for number, name in enumerate(useless):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(bytes([number]) * (20_000 + number))
        sizes[name] = 20_000 + number
    hub.add("org/crowded", folder)
    return sizes


def test_of_a_crowded_repository_only_what_is_needed_comes(
    hub: Hub, here: Run, tmp_path: Path, crowded: dict[str, int], expected: bytes
) -> None:
    facts = json.loads(here("plan", "org/crowded", tmp_path / "x.gguf", "--type", "q8_0", "--json").out)["fetch"]
    assert hub.bytes_served(WEIGHTS) == 64 << 10, "planning reads heads only"
    assert set(facts["left_out"]) == crowded.keys()
    assert facts["left_out_bytes"] == sum(crowded.values())
    told = here("plan", "org/crowded", tmp_path / "x.gguf", "--type", "q8_0").out
    (line,) = [line for line in told.splitlines() if line.startswith("skips")]
    assert "training_args.bin" in line, "the largest first"
    assert here("convert", "org/crowded", tmp_path / "x.gguf", "--type", "q8_0").code == 0
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert not fetched(hub) & crowded.keys()
    assert here("fetch", "org/crowded").code == 0
    assert not fetched(hub) & crowded.keys()
    assert here("fetch", "org/crowded", "--all").code == 0
    assert fetched(hub) >= crowded.keys()


def test_a_folder_of_a_repository_is_refused_with_the_way_to_have_it(
    hub: Hub, here: Run, tmp_path: Path, crowded: dict[str, int]
) -> None:
    refused = here("convert", "org/crowded/original", tmp_path / "x.gguf")
    assert refused.code == 66
    assert "is a folder" in refused.err
    assert "fetch --all org/crowded" in refused.err


def test_a_compressed_file_of_a_repository_is_refused_with_the_way_to_have_it(
    hub: Hub, here: Run, tmp_path: Path, crowded: dict[str, int]
) -> None:
    refused = here("convert", "org/crowded/model.gguf.zst", tmp_path / "x.gguf")
    assert refused.code == 65
    assert "model.gguf.zst is compressed" in refused.err
    assert "fetch --all org/crowded" in refused.err


def test_a_file_of_gemma_cpp_is_read_where_its_bytes_arrive(hub: Hub, here: Run, tmp_path: Path) -> None:
    toy = sbs_files.toy("gemma3", "exporter")
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "x-sfp.sbs").write_bytes(toy.file())
    hub.add("org/for-gemma-cpp", folder)
    refused = here("convert", "org/for-gemma-cpp", tmp_path / "out")
    assert refused.code == 65
    assert "Name one of them: org/for-gemma-cpp/x-sfp.sbs" in refused.err
    assert here("convert", "org/for-gemma-cpp/x-sfp.sbs", tmp_path / "out").code == 0
    assert streamconv.open(tmp_path / "out").keys() == toy.hf.keys()


def test_the_plan_of_a_merge_tells_what_comes_of_each_model(
    hub: Hub, here: Run, tmp_path: Path, tiny_model: Path
) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "other")
    data = bytearray((other / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (other / WEIGHTS).write_bytes(data)
    hub.add("org/other", other)
    recipe = tmp_path / "r.yml"
    recipe.write_text(f"merge_method: linear\nmodels:\n  - model: {MODEL}\n    parameters: {{weight: 1}}\n"
                      "  - model: org/other\n    parameters: {weight: 1}\n")  # fmt: skip
    facts = json.loads(here("plan", recipe, tmp_path / "x.gguf", "--type", "q8_0", "--json").out)["fetch"]
    assert facts["missing_bytes"] == 2 * (weights(hub) - (64 << 10))
    assert {name.split("@")[0] for name in facts["models"]} == {MODEL, "org/other"}
    assert hub.bytes_served(WEIGHTS) == 2 * (64 << 10), "planning reads heads only"
