"""The API: the same objects as the page, closed to strangers, and never outside its folders."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi import FastAPI, HTTPException, Request
from fastapi.testclient import TestClient
from safetensors.torch import load_file

from tests.waiting import until
from unziplora.app.http_api import PREFIX, add_routes
from unziplora.app.service import Service


@pytest.fixture
def service(host: Any, tmp_path: Path) -> Service:
    return Service(lambda: host, lambda: tmp_path / "out")


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    app = FastAPI()
    add_routes(app, service, lambda request: None)
    with TestClient(app) as client:
        yield client


def body(image_file: Path, **more: Any) -> dict[str, Any]:
    image = base64.b64encode(image_file.read_bytes()).decode()
    return {"image": image, "subject": "tree", "style": "flat drawing", "steps": 3, "rank": 2,
            "name": "pair", **more}  # fmt: skip


def finished(client: TestClient, job_id: str) -> dict[str, Any]:
    def run() -> dict[str, Any]:
        told: dict[str, Any] = client.get(f"{PREFIX}/runs/{job_id}").json()
        return told

    until(lambda: run()["state"] not in ("waiting", "running"), 0.1)
    return run()


def test_a_run_is_started_watched_and_its_files_are_fetched(
    client: TestClient, image_file: Path
) -> None:
    started = client.post(f"{PREFIX}/runs", json=body(image_file))
    assert started.status_code == 200, started.text
    told = finished(client, started.json()["id"])
    assert told["state"] == "completed"
    assert [e["step"] for e in told["events"] if e["type"] == "StepDone"] == [1, 2, 3]
    later = client.get(f"{PREFIX}/runs/{told['id']}?since=2").json()
    assert later["events"][0]["number"] == 2
    (pair,) = client.get(f"{PREFIX}/pairs").json()
    assert pair["content_trigger"] == "sks tree"
    file = client.get(f"{PREFIX}/pairs/pair/content")
    assert file.status_code == 200
    assert len(file.content) > 1000
    assert client.get(f"{PREFIX}/runs/{told['id']}/image").status_code == 200
    assert client.delete(f"{PREFIX}/pairs/pair").status_code == 200
    assert client.get(f"{PREFIX}/pairs").json() == []


def test_a_stopped_run_is_found_again_and_goes_on(client: TestClient, image_file: Path) -> None:
    job = client.post(f"{PREFIX}/runs", json=body(image_file, steps=400)).json()
    until(lambda: client.get(f"{PREFIX}/runs/{job['id']}").json()["step"] >= 1)
    client.post(f"{PREFIX}/runs/{job['id']}/commands", json={"command": "stop"})
    assert finished(client, job["id"])["state"] == "stopped"
    assert client.get(f"{PREFIX}/resumable").json() == ["pair"]
    again = client.post(f"{PREFIX}/resume", json={"name": "pair"}).json()
    until(lambda: client.get(f"{PREFIX}/runs/{again['id']}").json()["state"] == "running")
    client.post(f"{PREFIX}/runs/{again['id']}/commands", json={"command": "stop and save"})
    assert finished(client, again["id"])["files"]["style"] == "pair_style.safetensors"


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"image": None}, 422, "no image"),
        ({"image": "%%%"}, 422, "base64"),
        ({"image": base64.b64encode(b"no image").decode()}, 422, "image"),
        ({"subject": ""}, 422, "subject"),
        ({"steps": -1}, 422, "steps"),
        ({"name": "../x"}, 422, ""),
        ({"stepz": 1}, 422, "unknown setting 'stepz'"),
        ({"lr": "fast"}, 422, "lr"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_and_nothing_waits(
    client: TestClient, image_file: Path, change: dict[str, Any], status: int, said: str
) -> None:
    answer = client.post(f"{PREFIX}/runs", json=body(image_file, **change))
    assert answer.status_code == status
    assert said.lower() in answer.json()["detail"].lower()
    assert client.get(f"{PREFIX}/runs").json() == []


@pytest.mark.parametrize(
    "path",
    ["/runs/nothing", "/pairs/nothing/content", "/pairs/..%2f..%2fetc/content", "/runs/x/image"],
)
def test_what_is_not_there_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(PREFIX + path).status_code == 404


def test_previews_are_only_read_from_their_folder(
    client: TestClient, image_file: Path, tmp_path: Path
) -> None:
    job = client.post(f"{PREFIX}/runs", json=body(image_file)).json()
    finished(client, job["id"])
    secret = tmp_path / "out" / ".unziplora" / "pair" / "settings.json"
    assert secret.exists()
    for name in ("..%2fsettings.json", "%2e%2e%2fsettings.json", "settings.json"):
        answer = client.get(f"{PREFIX}/runs/{job['id']}/previews/{name}")
        assert answer.status_code == 404
        assert b"subject" not in answer.content
    link = tmp_path / "out" / ".unziplora" / "pair" / "previews" / "link.png"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(secret)
    assert client.get(f"{PREFIX}/runs/{job['id']}/previews/link.png").status_code == 404


def test_a_page_of_another_site_cannot_start_or_delete(
    client: TestClient, image_file: Path
) -> None:
    stranger = {"origin": "https://evil.example"}
    assert client.post(f"{PREFIX}/runs", json=body(image_file), headers=stranger).status_code == 403
    assert client.delete(f"{PREFIX}/pairs/x", headers=stranger).status_code == 403
    # a form can be sent across sites without asking first, but not as JSON
    assert client.post(f"{PREFIX}/runs", data={"subject": "x"}).status_code == 415


def test_every_route_is_closed_to_strangers(service: Service) -> None:
    def closed(request: Request) -> None:
        raise HTTPException(401)

    app = FastAPI()
    add_routes(app, service, closed)
    paths = {p: methods for p, methods in app.openapi()["paths"].items() if p.startswith(PREFIX)}
    assert len(paths) >= 9
    with TestClient(app) as client:
        for path, methods in paths.items():
            for method in methods:
                asked = path.format(job_id="x", name="x", role="content")
                assert client.request(method, asked).status_code == 401, (method, path)


def test_a_body_that_is_too_large_is_refused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unziplora.app.api_bodies.MOST_BYTES", 1000)
    answer = client.post(f"{PREFIX}/runs", json={"image": "x" * 2000})
    assert answer.status_code == 413


@pytest.mark.slow
def test_a_pair_is_renamed_trained_further_and_published(
    client: TestClient, service: Service, image_file: Path
) -> None:
    finished(client, client.post(f"{PREFIX}/runs", json=body(image_file)).json()["id"])
    renamed = client.post(f"{PREFIX}/pairs/pair/name", json={"name": "fox"})
    assert renamed.json()["content"] == "fox_content.safetensors"
    more = client.post(f"{PREFIX}/pairs/fox/more", json={"steps": 2}).json()
    assert finished(client, more["id"])["steps"] == 2
    started = client.post(f"{PREFIX}/runs", json=body(image_file, name="on", start_from="fox"))
    assert finished(client, started.json()["id"])["state"] == "completed"
    assert client.get(f"{PREFIX}/pairs/fox/previews").json() == []
    wanted = {"name": "fox", "title": "A fox", "licence": "mit"}
    published = client.post(f"{PREFIX}/publish", json=wanted).json()
    assert (published["folder"], published["zip"]) == ("fox", "fox.zip")
    assert "license: mit" in (service.publish_folder() / "fox" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("path", ["pairs/none/name", "pairs/none/more", "pairs/none/step"])
def test_a_pair_that_is_not_there_is_not_found(client: TestClient, path: str) -> None:
    answer = client.post(f"{PREFIX}/{path}", json={"name": "x", "steps": 1})
    assert answer.status_code == 404, answer.text


def test_presets_are_saved_read_and_deleted(client: TestClient) -> None:
    assert client.get(f"{PREFIX}/presets").json() == []
    fields = {"steps": "300", "rank": "16"}
    saved = client.put(f"{PREFIX}/presets/small", json={"fields": fields})
    assert saved.json() == client.get(f"{PREFIX}/presets/small").json() == fields
    assert client.get(f"{PREFIX}/presets").json() == ["small"]
    assert client.put(f"{PREFIX}/presets/small", json={"fields": {"steps": 3}}).status_code == 422
    half = client.put(
        f"{PREFIX}/presets/small",
        content=r'{"fields": {"token": "\ud83d"}}',  # half of what "\ud83d\ude00" is
        headers={"content-type": "application/json"},
    )
    assert half.status_code == 422
    assert "half of a character" in half.text
    whole = client.put(f"{PREFIX}/presets/smile", json={"fields": {"token": "\U0001f600"}})
    assert client.get(f"{PREFIX}/presets/smile").json() == whole.json() == {"token": "\U0001f600"}
    client.delete(f"{PREFIX}/presets/smile")
    assert client.delete(f"{PREFIX}/presets/small").json() == {"deleted": "small"}
    assert client.get(f"{PREFIX}/presets/small").status_code == 404
    assert client.delete(f"{PREFIX}/presets/small").status_code == 404


def test_every_body_is_described_for_those_who_try_it_out(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    bodies = {
        (path, method): call.get("requestBody")
        for path, calls in paths.items()
        for method, call in calls.items()
        if method in ("post", "put")
    }
    assert len(bodies) > 12
    for where, described in bodies.items():
        schema = described["content"]["application/json"]["schema"]
        assert set(schema["required"]) <= schema["example"].keys() <= schema["properties"].keys(), (
            where
        )


@pytest.mark.slow
def test_a_merge_that_learns_is_watched_and_stopped(client: TestClient, image_file: Path) -> None:
    finished(client, client.post(f"{PREFIX}/runs", json=body(image_file)).json()["id"])
    assert client.get(f"{PREFIX}/merge").json() is None
    parts = [{"pair": "pair", "role": role} for role in ("content", "style")]
    asked = {"name": "zipped", "parts": parts, "how": "zip"}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, f"{PREFIX}/merge", json=asked)
        until(lambda: (client.get(f"{PREFIX}/merge").json() or {}).get("step", 0) >= 1)
        assert client.get(f"{PREFIX}/merge").json()["steps"] == 100
        unknown = client.post(f"{PREFIX}/merge/commands", json={"command": "pause"})
        assert unknown.status_code == 422
        client.post(f"{PREFIX}/merge/commands", json={"command": "stop"})
        assert answer.result().json() == {"file": "zipped.safetensors"}
    shown = client.get(f"{PREFIX}/merge").json()
    assert (shown["state"], shown["file"]) == ("stopped", "zipped.safetensors")
    turned = client.post(f"{PREFIX}/merge", json={**asked, "name": "other", "parts": parts[::-1]})
    assert turned.status_code == 422
    assert "Name the content first" in turned.json()["detail"]
    few = {"zip_steps": 2, "zip_overlap": 0.5, "seed": 3}
    made = client.post(f"{PREFIX}/merge", json={**asked, "name": "few", **few})
    assert made.json() == {"file": "few.safetensors"}
    said = client.get(f"{PREFIX}/merge").json()
    assert (said["state"], said["step"], said["steps"]) == ("completed", 2, 2)
    wrong = client.post(f"{PREFIX}/merge", json={**asked, "name": "none", "zip_steps": 1.5})
    assert wrong.status_code == 422


def test_a_projection_is_told_how_far_the_content_gives_way(
    client: TestClient, image_file: Path, tmp_path: Path
) -> None:
    finished(client, client.post(f"{PREFIX}/runs", json=body(image_file)).json()["id"])
    parts = [{"pair": "pair", "role": role} for role in ("content", "style")]
    for name, how, mu in (("sum", "add", 1), ("none", "np", 0), ("some", "np", 0.5)):
        asked = {"name": name, "parts": parts, "how": how, "mu": mu}
        assert client.post(f"{PREFIX}/merge", json=asked).status_code == 200
    made = {n: load_file(tmp_path / "out" / f"{n}.safetensors") for n in ("sum", "none", "some")}

    def changes(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        downs = {key: key.replace("lora_up", "lora_down") for key in tensors if "lora_up" in key}
        return torch.cat(
            [
                (tensors[u].double() @ tensors[d].double()).flatten()
                for u, d in sorted(downs.items())
            ]
        )

    whole, same, less = (changes(tensors) for tensors in made.values())
    assert 0.1 * (whole - less).norm() > (whole - same).norm()
