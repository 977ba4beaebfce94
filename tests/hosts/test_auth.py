"""Who may use the API of the real WebUIs, and the flags that they were started with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.hosts.programs import API, KINDS, WebUI, place

PAGE, OWN = (
    ("someone", "secret"),
    ("robot", "key"),
)  # logins: to a page, to an API
IN_FP8 = ("reforge", "classic")  # a flag at their start says how to store a checkpoint
ROUTES = ["/runs", "/pairs", "/resumable", "/runs/x", "/runs/x/image", "/pairs/x/content"]


@pytest.fixture(scope="module", params=KINDS)
def closed(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    checkpoints: list[Path],
) -> Iterator[WebUI]:
    """Without --api, with a login to its page, and Automatic1111 with --lowvram."""
    place(request.param)
    flags = ["--gradio-auth", "someone:secret"]
    flags += ["--lowvram"] if request.param == "a1111" else []
    with WebUI(request.param, tmp_path_factory.mktemp("closed"), checkpoints, flags) as started:
        yield started


def test_without_the_flag_there_is_no_api(closed: WebUI) -> None:
    for route in ROUTES:
        assert closed.client.get(API + route).status_code in (404, 405), route
    assert closed.client.post(f"{API}/runs", json={}).status_code in (404, 405)


def test_lowvram_is_refused_in_a_sentence(closed: WebUI) -> None:
    if closed.kind != "a1111":
        pytest.skip("Forge and its relatives have no --lowvram: they move whole models themselves.")
    assert "--medvram-sdxl" in closed.get("/test/host")["refused"]


@pytest.fixture(scope="module", params=KINDS)
def guarded(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    checkpoints: list[Path],
) -> Iterator[WebUI]:
    """Automatic1111 with credentials for its API beside those of its page, and models moved in and
    out; the others with those of their page alone. All with another Lora folder."""
    place(request.param)
    data = tmp_path_factory.mktemp("guarded")
    loras = data / "my loras"
    loras.mkdir()
    flags = ["--api", "--gradio-auth", "someone:secret", "--lora-dir", str(loras)]
    if request.param == "a1111":
        flags += ["--api-auth", "robot:key", "--medvram-sdxl"]
    if request.param in IN_FP8:
        flags += ["--unet-in-fp8-e4m3fn"]
    with WebUI(request.param, data, checkpoints, flags) as started:
        started.loras = loras
        started.client.auth = OWN if request.param == "a1111" else PAGE
        yield started


def test_strangers_are_refused_on_every_route(guarded: WebUI) -> None:
    strangers: list[tuple[str, str] | None] = [None, ("robot", "guess"), ("someone", "guess")]
    strangers += [PAGE if guarded.kind == "a1111" else OWN]
    for login in strangers:
        with httpx.Client(base_url=guarded.url, auth=login) as client:
            for route in ROUTES:
                assert client.get(API + route).status_code == 401, (login, route)
            assert client.post(f"{API}/runs", json={}).status_code == 401
            assert client.delete(f"{API}/pairs/x").status_code == 401
    assert guarded.get(f"{API}/runs") == []


def test_who_is_logged_in_to_the_page_may_use_the_api_that_has_no_login_of_its_own(
    guarded: WebUI,
) -> None:
    with httpx.Client(base_url=guarded.url) as client:
        client.post("/login", data={"username": "someone", "password": "secret"})
        expected = 401 if guarded.kind == "a1111" else 200
        assert client.get(f"{API}/runs").status_code == expected


def test_a_pair_goes_to_the_folder_that_was_chosen_whatever_the_base_is_stored_in(
    guarded: WebUI, source_image: Path
) -> None:
    guarded.draw("a house")
    before = guarded.get("/test/weights")
    in_fp8 = "torch.float8_e4m3fn" in guarded.get("/test/traits")["unet"]["dtypes"]
    assert in_fp8 == (guarded.kind in IN_FP8)
    run = guarded.train("elsewhere", source_image, preview_every=3, preview_steps=2)
    assert run["state"] == "completed", run
    assert (guarded.loras / "elsewhere_content.safetensors").is_file()
    assert guarded.get("/test/weights") == before
    drawn = [guarded.draw(f"a sks cat <lora:elsewhere_content:{w}>").tobytes() for w in (0, 1)]
    assert drawn[0] != drawn[1]
