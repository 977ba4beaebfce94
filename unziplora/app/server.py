"""The page without a WebUI: `unziplora app`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request

from unziplora.app.auth import check_login, is_loopback, require_user
from unziplora.app.http_api import add_routes
from unziplora.app.page_values import PageValues
from unziplora.app.request_guard import RequestGuard
from unziplora.app.service import Service
from unziplora.app.sheet import Draw, WeightedLora
from unziplora.app.uploads import upload_folder
from unziplora.host import ModelIdentity
from unziplora.training.model_traits import ModelInfo


def make_app(
    open_host: Callable[[], Any],
    folder: Path,
    login: str | None = None,
    draw_with: Callable[[Any], Draw] | None = None,
    unloaded: Callable[[], ModelInfo | None] = lambda: None,
    checkpoint: Callable[[], ModelIdentity | None] = lambda: None,
    address: str = "127.0.0.1",
) -> FastAPI:
    """Page and API on one FastAPI application; its `state.service` is to be closed at the end.

    open_host: called once, when the first run's turn comes; folder: where pairs go; login:
    "user:password", which the page and every route then ask for; draw_with: of a host, what draws
    sheets with it; unloaded: what is known of the model before it is opened; checkpoint: its name
    and family; address: what the server will listen on. Raises InvalidInput for a login without
    a colon.
    """
    from unziplora.ui.gradio_compat import is_logged_in, mount
    from unziplora.ui.page import build

    check_login(login)
    upload_folder()  # before the page is built, whose fields remember where it is
    service = _service(lru_cache(maxsize=1)(open_host), folder, draw_with, unloaded, checkpoint)
    page = build(service)
    # gradio checks paths from the page only on pages that were launched, which mounting leaves out
    page.has_launched = True
    # its listing of routes is open, so there is none where a login is asked for
    app = FastAPI(title="UnZipLoRA", openapi_url=None if login else "/openapi.json")
    values = lru_cache(maxsize=1)(lambda: PageValues(page))
    app.add_middleware(
        RequestGuard,
        page=values,
        loopback=is_loopback(address),
        logged_in=lambda request: login is None or is_logged_in(app, request),
    )
    app.state.service = service
    users = [login] if login is not None else []

    def allow(request: Request) -> None:
        require_user(request, users)

    add_routes(app, service, allow)
    mounted: FastAPI = mount(app, page, login)
    return mounted


def _service(
    opened: Any,
    folder: Path,
    draw_with: Callable[[Any], Draw] | None,
    unloaded: Callable[[], ModelInfo | None],
    checkpoint: Callable[[], ModelIdentity | None],
) -> Service:
    """opened: gives the host, the same one each time; its cache_info says whether it is open."""

    def draw(prompts: Sequence[str], loras: Sequence[WeightedLora], seed: int) -> Any:
        assert draw_with is not None
        return draw_with(opened())(prompts, loras, seed)

    def model_info() -> ModelInfo | None:
        if opened.cache_info().currsize:
            host = opened()
            return ModelInfo(host.unet, host.device, host.defaults)
        return known.result() if known.done() else None

    # it may take seconds, in which the page is there already
    reading = ThreadPoolExecutor(1)
    known, identity = reading.submit(unloaded), reading.submit(checkpoint)
    return Service(
        opened,
        lambda: folder,
        draw=draw if draw_with else None,
        model_info=model_info,
        checkpoint=lambda: _result(identity),
    )


def _result(of: Future[ModelIdentity | None]) -> ModelIdentity | None:
    """None while it is not there, and where it failed: the model's own error says why."""
    return of.result() if of.done() and of.exception() is None else None
