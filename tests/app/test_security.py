"""Who is let in, what can be reached, and what the files say of their maker."""

from __future__ import annotations

import base64
import json
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the app's page needs gradio")

from fastapi.testclient import TestClient

from tests.waiting import until
from unziplora.app.http_api import PREFIX
from unziplora.app.job_queue import ENDED
from unziplora.app.server import make_app
from unziplora.app.service import Service

LOGIN = "ann:a long word"
PARTS = {"job_id": "x", "name": "x", "role": "content"}


def basic(login: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(login.encode()).decode()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def open_app(host: Any, out: Path) -> Iterator[TestClient]:
    with TestClient(make_app(lambda: host, out), base_url="http://127.0.0.1:7860") as client:
        yield client


@pytest.fixture
def closed_app(host: Any, out: Path) -> Iterator[TestClient]:
    app = make_app(lambda: host, out, LOGIN)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


def our_routes(client: TestClient) -> list[tuple[str, str]]:
    """Method and path of everything below our prefix, as the application itself lists it."""
    found = []
    for route in client.app.routes:  # type: ignore[attr-defined]
        for inner in getattr(getattr(route, "original_router", route), "routes", [route]):
            path = getattr(inner, "path", "")
            if path.startswith(PREFIX):
                found += [(method, path.format(**PARTS)) for method in inner.methods]
    return found


def test_every_route_of_ours_asks_for_the_login(closed_app: TestClient) -> None:
    routes = our_routes(closed_app)
    assert len(routes) >= 11
    for method, path in routes:
        for headers in ({}, basic("ann:wrong"), basic(""), {"authorization": "Basic %%%"},
                        {"authorization": "Bearer x"}):  # fmt: skip
            assert closed_app.request(method, path, headers=headers).status_code == 401, path
        assert closed_app.request(method, path, headers=basic(LOGIN)).status_code != 401, path


@pytest.mark.parametrize(
    "path", ["/config", "/gradio_api/info", "/openapi.json", "/docs", "/gradio_api/queue/join"]
)
def test_the_page_and_what_lists_routes_ask_for_the_login_too(
    closed_app: TestClient, path: str
) -> None:
    method = "POST" if path.endswith("join") else "GET"
    answer = closed_app.request(method, path, json={"data": [], "fn_index": 0, "session_hash": "x"})
    assert answer.status_code in (401, 404), answer.text[:200]


ELSEWHERE: list[dict[str, str]] = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:8080"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:7860"},
]


@pytest.mark.parametrize("headers", ELSEWHERE)
def test_a_page_of_another_origin_can_neither_start_nor_delete(
    open_app: TestClient, headers: dict[str, str], out: Path
) -> None:
    changing = [(m, p) for m, p in our_routes(open_app) if m not in ("GET", "HEAD")]
    pages = [("POST", "/gradio_api/queue/join"), ("POST", "/gradio_api/run/predict"),
             ("POST", "/gradio_api/upload"), ("POST", "/login")]  # fmt: skip
    assert len(changing) >= 4
    for method, path in changing + pages:
        asked = open_app.request(method, path, headers=headers, json={})
        assert asked.status_code == 403, path
    assert not out.exists()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:7860"},
        {"sec-fetch-site": "same-origin"},
        {"origin": "https://mine.example", "x-forwarded-host": "mine.example"},
    ],
)
def test_our_own_page_and_programs_are_let_through(
    open_app: TestClient, headers: dict[str, str]
) -> None:
    answer = open_app.post(f"{PREFIX}/resume", headers=headers, json={"name": "nothing"})
    assert answer.status_code == 422
    assert "There is no run" in answer.json()["detail"]


def trained(client: TestClient, image_file: Path, **more: Any) -> dict[str, Any]:
    image = base64.b64encode(image_file.read_bytes()).decode()
    body = {"image": image, "subject": "tree", "style": "flat drawing", "steps": 2, "rank": 2,
            "name": "pair", "preview_every": 1, "preview_steps": 1, **more}  # fmt: skip
    job = client.post(f"{PREFIX}/runs", json=body).json()
    until(lambda: client.get(f"{PREFIX}/runs/{job['id']}").json()["state"] in ENDED)
    told: dict[str, Any] = client.get(f"{PREFIX}/runs/{job['id']}").json()
    return told


LEADING_OUT = [
    "..", "../secret", "../../secret", "/etc/passwd", "..\\secret", "C:\\secret", "C:secret",
    "\\\\server\\share", "//server/share", "secret\0", "./pair/../../secret", "%2e%2e/secret",
    "~/secret", "a" * 4000, "\ud800",
]  # fmt: skip


def test_no_name_leads_out_of_the_folders(
    open_app: TestClient, image_file: Path, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"SECRET")
    for role in ("content", "style"):
        (tmp_path / f"secret_{role}.safetensors").write_bytes(b"SECRET")
    job = trained(open_app, image_file)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for name in LEADING_OUT:
        quoted = urllib.parse.quote(name.encode("utf-8", "surrogatepass"), safe="")
        quoted = quoted.replace("..", "%2e%2e")  # or the client itself walks up
        for method, path in (
            ("GET", f"/runs/{quoted}"), ("GET", f"/runs/{quoted}/image"),
            ("GET", f"/runs/{quoted}/report"), ("GET", f"/pairs/{quoted}/content"),
            ("GET", f"/runs/{job['id']}/previews/{quoted}"), ("DELETE", f"/pairs/{quoted}"),
        ):  # fmt: skip
            answer = open_app.request(method, PREFIX + path)
            assert answer.status_code in (404, 405), (method, path, answer.status_code)
            assert b"SECRET" not in answer.content
        text = json.dumps({"name": name}).encode()
        headers = {"content-type": "application/json"}
        answer = open_app.post(f"{PREFIX}/resume", content=text, headers=headers)
        assert answer.status_code == 422, name
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_no_link_leads_out_of_the_folders(
    open_app: TestClient, image_file: Path, tmp_path: Path, out: Path
) -> None:
    job = trained(open_app, image_file)
    secret = tmp_path / "secret.png"
    secret.write_bytes((out / "pair_content.safetensors").read_bytes())
    for path, asked in {
        out / ".unziplora" / "pair" / "image.png": f"/runs/{job['id']}/image",
        out
        / ".unziplora"
        / "pair"
        / "previews"
        / "000002_both.png": f"/runs/{job['id']}/previews/000002_both.png",
        out / "pair_content.safetensors": "/pairs/pair/content",
    }.items():
        assert open_app.get(PREFIX + asked).status_code == 200
        path.unlink()
        path.symlink_to(secret)
        assert open_app.get(PREFIX + asked).status_code == 404, asked


def test_a_service_makes_no_file_or_folder_under_a_name_that_leads_out(
    host: Any, tmp_path: Path, image_file: Path
) -> None:
    from unziplora.errors import InvalidInput

    service = Service(lambda: host, lambda: tmp_path / "out")
    before = sorted(tmp_path.iterdir())
    words = {"subject": "tree", "style": "ink"}
    for name in LEADING_OUT:
        for act in (
            lambda name=name: service.start(image_file, {**words, "name": name}),
            lambda name=name: service.merge(name, [(image_file, 1.0)]),
            lambda name=name: service.publish(name),
            lambda name=name: service.delete(name),
            lambda name=name: service.delete_run(name),
            lambda name=name: service.resume(name),
        ):
            with pytest.raises(InvalidInput):
                act()
    assert sorted(p for p in tmp_path.iterdir() if p.name != "out") == before
    assert not any((tmp_path / "out").glob("**/*"))


def test_gradio_gives_no_file_away(open_app: TestClient, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (64, 64)).save(secret)
    for prefix in ("/gradio_api/file=", "/file="):
        for path in (secret, Path("/etc/passwd"), Path.cwd() / "pyproject.toml"):
            assert open_app.get(f"{prefix}{path}").status_code in (403, 404)


def test_files_that_are_shared_do_not_say_whose_they_are(
    host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ["quentinzebra", "zebra-host-17", "hf_QuentinsOwnKey0123456789", "Quentin Zebra"]
    home = tmp_path / "home" / "quentinzebra" / "Quentin Zebra"
    home.mkdir(parents=True)
    for name, value in {"HOME": str(home), "USER": own[0], "LOGNAME": own[0], "HF_TOKEN": own[2],
                        "USERNAME": own[0], "USERPROFILE": str(home)}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("socket.gethostname", lambda: own[1])
    monkeypatch.setattr("platform.node", lambda: own[1])
    image = home / "photo of Quentin Zebra.png"
    Image.new("RGB", (96, 80), "ivory").save(image)
    denoise, calls = host.preview, []

    def preview(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OSError(f"no {home}/vae.pt for {own[0]}@{own[1]}, token={own[2]}")
        return denoise(*given, **named)

    host.preview = preview
    service = Service(lambda: host, lambda: home / "Lora")
    job = service.start(image, {
        "subject": "tree", "style": "ink", "steps": 3, "rank": 2, "name": "pair",
        "preview_every": 1, "preview_steps": 1, "snapshot_every": 2, "keep_state": True,
    })  # fmt: skip
    until(lambda: job.state in ENDED)
    assert job.state == "completed", job.error
    shared = [*service.publish("pair").rglob("*")]
    shared.append(service.merge("both", [(path, 1.0) for path in job.files.values()]))
    out = home / "Lora"
    shared += [path for path in out.rglob("*") if path.name != "log.txt"]
    report = out / "report.txt"
    report.write_text(service.report(job.id), encoding="utf-8")
    log = out / ".unziplora" / "pair" / "log.txt"
    assert own[0] in log.read_text(encoding="utf-8")  # what is cleaned
    assert "The preview failed" in report.read_text(encoding="utf-8")
    checked = 0
    for path in [*shared, report]:
        if path.is_file():
            data = path.read_bytes().lower()
            for word in (*own, str(tmp_path), str(Path.cwd())):
                assert word.lower().encode() not in data, (path.name, word)
            checked += 1
    assert checked > 15
    assert "photo" not in report.read_text(encoding="utf-8")
