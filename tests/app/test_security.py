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
from unziplora.app.job import ENDED
from unziplora.app.server import make_app
from unziplora.app.service import Service
from unziplora.errors import InvalidInput

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


@pytest.fixture(scope="module")
def unused_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the apps in which nothing is trained."""
    return tmp_path_factory.mktemp("unused") / "out"


@pytest.fixture(scope="module")
def idle_app(unused_out: Path) -> Iterator[TestClient]:
    app = make_app(no_model, unused_out)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


@pytest.fixture(scope="module")
def closed_app(unused_out: Path) -> Iterator[TestClient]:
    app = make_app(no_model, unused_out, LOGIN)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


def no_model() -> Any:
    pytest.fail("The model was asked for.")


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
    body = {"data": [], "fn_index": 0, "session_hash": "x"}
    answer = closed_app.request(method, path, json=body)
    assert answer.status_code in (401, 404), answer.text[:200]


def test_the_page_answers_who_logged_in(closed_app: TestClient) -> None:
    user, password = LOGIN.split(":")
    call = {"data": [], "fn_index": 0, "session_hash": "x"}
    assert closed_app.post("/gradio_api/queue/join", json=call).status_code == 401
    assert closed_app.post("/gradio_api/upload").status_code == 401
    sent = {"username": user, "password": password}
    assert closed_app.post("/login", data=sent).status_code == 200
    assert closed_app.post("/gradio_api/queue/join", json=call).status_code not in (401, 403)
    assert closed_app.post("/gradio_api/upload").status_code not in (401, 403)


ELSEWHERE: list[dict[str, str]] = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:8080"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:7860"},
]


@pytest.mark.parametrize("headers", ELSEWHERE)
def test_a_page_of_another_origin_can_neither_start_nor_delete(
    idle_app: TestClient, headers: dict[str, str], unused_out: Path
) -> None:
    changing = [(m, p) for m, p in our_routes(idle_app) if m not in ("GET", "HEAD")]
    pages = [("POST", "/gradio_api/queue/join"), ("POST", "/gradio_api/run/predict"),
             ("POST", "/gradio_api/upload"), ("POST", "/login")]  # fmt: skip
    assert len(changing) >= 4
    for method, path in changing + pages:
        asked = idle_app.request(method, path, headers=headers, json={})
        assert asked.status_code == 403, path
    assert not unused_out.exists()


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
    idle_app: TestClient, headers: dict[str, str]
) -> None:
    answer = idle_app.post(f"{PREFIX}/resume", headers=headers, json={"name": "nothing"})
    assert answer.status_code == 422
    assert "There is no run" in answer.json()["detail"]


def trained(client: TestClient, image_file: Path, **more: Any) -> dict[str, Any]:
    image = base64.b64encode(image_file.read_bytes()).decode()
    body = {"image": image, "subject": "tree", "style": "flat drawing", "steps": 2, "rank": 2,
            "name": "pair", "preview_every": 1, "preview_steps": 1, **more}  # fmt: skip
    job = client.post(f"{PREFIX}/runs", json=body).json()
    until(lambda: client.get(f"{PREFIX}/runs/{job['id']}").json()["state"] in ENDED, 0.1)
    told: dict[str, Any] = client.get(f"{PREFIX}/runs/{job['id']}").json()
    return told


LEADING_OUT = [
    "..", "../secret", "../../secret", "/etc/passwd", "..\\secret", "C:\\secret", "C:secret",
    "\\\\server\\share", "//server/share", "secret\0", "./pair/../../secret", "%2e%2e/secret",
    "~/secret", "a" * 4000, "\ud800",
]  # fmt: skip


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("what", ["start", "merge", "publish", "delete", "delete_run", "resume"])
def test_a_service_makes_nothing_under_a_name_that_leads_out(
    host: Any, tmp_path: Path, image_file: Path, what: str
) -> None:
    service = Service(lambda: host, lambda: tmp_path / "out")
    before = sorted(tmp_path.iterdir())
    for name in LEADING_OUT:
        words = {"subject": "tree", "style": "ink", "name": name}
        given = {"start": (image_file, words), "merge": (name, [(image_file, 1.0)])}
        with pytest.raises(InvalidInput):
            getattr(service, what)(*given.get(what, (name,)))
    assert sorted(p for p in tmp_path.iterdir() if p.name != "out") == before
    assert not any((tmp_path / "out").glob("**/*"))


def test_gradio_gives_no_file_away(idle_app: TestClient, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (64, 64)).save(secret)
    for prefix in ("/gradio_api/file=", "/file="):
        for path in (secret, Path("/etc/passwd"), Path.cwd() / "pyproject.toml"):
            assert idle_app.get(f"{prefix}{path}").status_code in (403, 404)


OWN = ["quentinzebra", "zebra-host-17", "hf_QuentinsOwnKey0123456789", "Quentin Zebra"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a user whose names, machine and key are OWN."""
    home = tmp_path / "home" / OWN[0] / OWN[3]
    home.mkdir(parents=True)
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, OWN[0])
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("HF_TOKEN", OWN[2])
    monkeypatch.setattr("socket.gethostname", lambda: OWN[1])
    monkeypatch.setattr("platform.node", lambda: OWN[1])
    return home


def fail_once(host: Any, text: str) -> None:
    """The host's first preview fails with this text."""
    preview, calls = host.preview, []

    def failing(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OSError(text)
        return preview(*given, **named)

    host.preview = failing


@pytest.mark.slow
def test_files_that_are_shared_do_not_say_whose_they_are(
    host: Any, tmp_path: Path, home: Path
) -> None:
    image = home / f"photo of {OWN[3]}.png"
    Image.new("RGB", (96, 80), "ivory").save(image)
    fail_once(host, f"no {home}/vae.pt for {OWN[0]}@{OWN[1]}, token={OWN[2]}")
    service = Service(lambda: host, lambda: home / "Lora")
    job = service.start(image, {
        "subject": "tree", "style": "ink", "steps": 3, "rank": 2, "name": "pair",
        "preview_every": 1, "preview_steps": 1, "snapshot_every": 2, "keep_state": True,
    })  # fmt: skip
    until(lambda: job.state in ENDED)
    assert job.state == "completed", job.error
    service.publish("pair")
    service.merge("both", [(path, 1.0) for path in job.files.values()])
    report = service.report(job.id)
    log = service.run_folder("pair").log
    assert OWN[0] in log.read_text(encoding="utf-8")  # what is cleaned
    assert "The preview failed" in report
    assert "photo" not in report
    shared = [path for path in home.rglob("*") if path.is_file() and path not in (log, image)]
    assert len(shared) > 15
    for path in shared:
        assert_names_nobody(path.read_bytes(), tmp_path, path.name)
    assert_names_nobody(report.encode(), tmp_path, "report")


def assert_names_nobody(data: bytes, folder: Path, what: str) -> None:
    for word in (*OWN, str(folder), str(Path.cwd())):
        assert word.lower().encode() not in data.lower(), (what, word)
