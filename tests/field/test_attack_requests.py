"""What others send to the app: false names, bodies without end, empty connections."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

pytest.importorskip("gradio", reason="the app's page needs gradio")

from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from unziplora.app import request_guard, serving, uploads
from unziplora.app.auth import check_login, is_user, names_loopback, users_in, users_of
from unziplora.app.http_api import PREFIX
from unziplora.app.page_values import MOST_CONTAINERS, parse
from unziplora.app.server import make_app
from unziplora.errors import InvalidInput
from unziplora.ui.gradio_compat import blocks, when

HERE = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def client(
    make_host: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    host = make_host()
    app = make_app(lambda: host, tmp_path_factory.mktemp("served") / "out")
    with TestClient(app, base_url=HERE) as client:
        yield client


@pytest.mark.parametrize(
    "name", ["localhost", "localhost:7860", "LOCALHOST:80", "127.0.0.1:7860", "[::1]:7860", "[::1]"]
)
def test_this_machines_own_names_are_let_in(client: TestClient, name: str) -> None:
    assert client.get(f"{PREFIX}/runs", headers={"host": name}).status_code == 200


@pytest.mark.parametrize(
    "name",
    ["evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.evil.example:7860",
     "localhost:7860:1", "127.0.0.2:7860", "0.0.0.0:7860", "", "[::1", "localhost@evil.example"],
)  # fmt: skip
def test_a_name_that_was_made_to_lead_here_is_not(client: TestClient, name: str) -> None:
    for path in (f"{PREFIX}/runs", "/", "/config", "/gradio_api/queue/join"):
        own = {"host": name, "origin": f"http://{name}"}
        assert client.get(path, headers=own).status_code == 403
        assert client.post(path, headers=own, json={}).status_code == 403


def test_on_a_network_every_name_is_let_in(host: Any, tmp_path: Path) -> None:
    app = make_app(lambda: host, tmp_path, address="0.0.0.0")
    with TestClient(app, base_url="http://studio.example:7860") as client:
        assert client.get(f"{PREFIX}/runs").status_code == 200
    assert names_loopback("localhost")


def test_a_websocket_is_refused(client: TestClient) -> None:
    refused = pytest.raises(WebSocketDisconnect)
    with refused as close, client.websocket_connect("/queue/join"):
        pass
    assert close.value.code == 1008


@pytest.mark.parametrize(
    ("path", "size"),
    [(f"{PREFIX}/runs", 65_000_000), (f"{PREFIX}/merge", 65_000_000), ("/login", 1_100_000),
     ("/gradio_api/queue/join", 1_100_000), ("/gradio_api/run/predict", 1_100_000),
     ("/gradio_api/reset", 1_100_000)],
)  # fmt: skip
def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(
    client: TestClient, path: str, size: int
) -> None:
    form = "application/x-www-form-urlencoded"
    headers = {"content-type": form if path == "/login" else "application/json"}
    said = client.post(path, headers={**headers, "content-length": str(size)}, content=b"{}")
    assert said.status_code == 413

    def parts() -> Iterator[bytes]:
        for _ in range(0, size, 1_000_000):
            yield b" " * 1_000_000

    assert client.post(path, headers=headers, content=parts()).status_code == 413


def test_json_that_would_take_far_more_memory_than_its_text_is_not_read(client: TestClient) -> None:
    bomb = b"[" + b"[]," * MOST_CONTAINERS + b"[]]"
    headers = {"content-type": "application/json"}
    for path in (f"{PREFIX}/runs", "/gradio_api/queue/join"):
        answer = client.post(path, headers=headers, content=b'{"subject":' + bomb + b"}")
        assert answer.status_code == 422
        assert "lists or objects" in answer.json()["detail"]


@pytest.mark.parametrize("text", [b"[" * 15_000, b'{"a":' * 15_000, b"", b"{", b"\xff"])
def test_json_that_cannot_be_read_is_refused_in_words(text: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse(text)


class Stalled:
    """A client that says that more is coming, and sends nothing."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self._parts = [{"type": "http.request", "body": b"--x", "more_body": True}]

    async def receive(self) -> Any:
        if not self._parts:
            await asyncio.sleep(3600)
        return self._parts.pop()

    async def send(self, message: Any) -> None:
        self.answers.append(message)


def test_a_body_that_does_not_come_ends_in_time_and_frees_its_place(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_guard, "GRACE_SECONDS", 0.2)

    for path in (f"{PREFIX}/runs", "/gradio_api/upload", "/gradio_api/queue/join", "/login"):
        kind = "application/json" if "runs" in path or "queue" in path else "multipart/form-data"
        headers = [(b"host", b"127.0.0.1:7860"), (b"transfer-encoding", b"chunked"),
                   (b"content-type", f"{kind}; boundary=x".encode())]  # fmt: skip
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "path": path,
                 "method": "POST", "scheme": "http", "query_string": b"", "headers": headers,
                 "raw_path": path.encode(), "server": ("127.0.0.1", 7860), "root_path": "",
                 "client": ("127.0.0.1", 1)}  # fmt: skip
        for _ in range(request_guard.MOST_LARGE + 2):  # each place is free again
            stalled = Stalled()
            anyio.run(client.app, scope, stalled.receive, stalled.send)
            assert stalled.answers[0]["status"] == 408, path


def test_connections_leave_files_for_a_run() -> None:
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert serving.most_connections() <= 64
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_port_that_there_is_not_is_refused_in_a_sentence() -> None:
    with pytest.raises(InvalidInput, match="no port 99999"):
        serving.serve(None, "127.0.0.1", 99999)
    with pytest.raises(InvalidInput, match="Nothing can listen"):
        serving.serve(None, "no such name", 7860)


@pytest.mark.parametrize("login", ["ann", "ann:", ":word", ":", ""])
def test_a_login_without_user_or_password_is_refused_and_not_repeated(login: str) -> None:
    with pytest.raises(InvalidInput, match="USER:PASSWORD") as refused:
        check_login(login)
    assert not login.strip(":") or login not in str(refused.value).replace("USER:PASSWORD", "")


def test_users_come_from_text_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("ann:one, bob:two\n\ncy:three\n")
    assert users_in(tmp_path / "users") == ["ann:one", "bob:two", "cy:three"]
    assert users_of(" ann:one,") == ["ann:one"]
    assert users_of(None) == users_in(None) == []
    assert not is_user("Basic YW5uOm9uZQ==", [])
    assert is_user("basic YW5uOm9uZQ==", ["bob:two", "ann:one"])
    assert not is_user("Bearer YW5uOm9uZQ==", ["ann:one"])


def test_an_upload_is_this_processs_own_and_goes_when_it_was_used(client: TestClient) -> None:
    answer = client.post("/gradio_api/upload", files={"files": ("a.png", b"data")})
    (path,) = map(Path, answer.json())
    assert uploads.upload_folder() in path.parents
    assert client.get(f"/gradio_api/file={path}").content == b"data"
    uploads.make_room(now=path.stat().st_mtime + uploads.KEPT_SECONDS - 1)
    assert path.exists()
    uploads.make_room(now=path.stat().st_mtime + uploads.KEPT_SECONDS + 1)
    assert not path.exists()
    answer = client.post("/gradio_api/upload", files={"files": ("a.png", b"data")})
    uploads.discard(answer.json()[0])
    assert client.get(f"/gradio_api/file={path}").status_code == 404


def test_the_folder_of_a_killed_process_is_removed_and_that_of_another_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    killed = tmp_path / f"unziplora-uploads-{ended.pid}-abc"
    running = tmp_path / f"unziplora-uploads-{os.getppid()}-abc"
    for folder in (killed, running):
        folder.mkdir()
        (folder / "x").write_text("x")
    script = "from unziplora.app.uploads import upload_folder; print(upload_folder())"
    own = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                         env={**os.environ, "GRADIO_TEMP_DIR": str(tmp_path)})  # fmt: skip
    assert Path(own.stdout.strip()).parent == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == [running.name]


def test_in_a_webui_too_text_fields_take_text_only() -> None:
    import gradio as gr

    with blocks():
        field, button = gr.Textbox(), gr.Button()
        when(button.click, lambda text: None, [field], None)
    assert field.preprocess("words") == "words"
    for value in ({"path": "/etc/passwd"}, ["x"], 3):
        with pytest.raises(gr.Error) as refused:
            field.preprocess(value)
        assert "passwd" not in str(refused.value)


def test_schemas_of_all_bodies_are_in_the_docs(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path, ways in paths.items():
        if path.startswith(PREFIX) and "post" in ways:
            content = ways["post"]["requestBody"]["content"]["application/json"]
            assert content["schema"]["properties"], path
            assert json.dumps(content["schema"]["example"])
    start = paths[f"{PREFIX}/runs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert start["properties"]["memory"]["enum"][0] == "auto"
    assert start["properties"]["steps"]["type"] == "integer"
