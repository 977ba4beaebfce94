"""The page without a WebUI: `unziplora app`."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.requests import HTTPConnection
from fastapi.responses import PlainTextResponse

from unziplora.app.http_api import add_routes, from_elsewhere
from unziplora.app.service import ModelInfo, Service
from unziplora.app.sheet import Draw, WeightedLora
from unziplora.host import ModelIdentity


def make_app(
    open_host: Callable[[], Any],
    folder: Path,
    login: str | None = None,
    draw_with: Callable[[Any], Draw] | None = None,
    unloaded: Callable[[], ModelInfo | None] = lambda: None,
    checkpoint: Callable[[], ModelIdentity | None] = lambda: None,
) -> FastAPI:
    """Page and API on one FastAPI application. open_host: called once, when the first run's turn
    comes; folder: where pairs go; login: "user:password", which the page and every route then
    ask for; draw_with: of a host, what draws sheets with it; unloaded: what is known of the model
    before it is opened; checkpoint: its name and family."""
    from unziplora.ui.gradio_compat import mount
    from unziplora.ui.page import build

    opened = lru_cache(maxsize=1)(open_host)

    def draw(prompts: Sequence[str], loras: Sequence[WeightedLora], seed: int) -> Any:
        assert draw_with is not None
        return draw_with(opened())(prompts, loras, seed)

    def model_info() -> ModelInfo | None:
        if opened.cache_info().currsize:
            host = opened()
            return host.unet, host.device, host.defaults
        return known.result() if known.done() else None

    # it may take seconds, in which the page is there already
    reading = ThreadPoolExecutor(1)
    known, identity = reading.submit(unloaded), reading.submit(checkpoint)
    drawing = draw if draw_with else None
    service = Service(
        opened,
        lambda: folder,
        draw=drawing,
        model_info=model_info,
        checkpoint=lambda: _result(identity),
    )
    # its listing of routes is open, so there is none where a login is asked for
    app = FastAPI(title="UnZipLoRA", openapi_url=None if login else "/openapi.json")
    app.add_middleware(_SameOrigin)
    app.state.service = service
    add_routes(app, service, allow_basic(login))
    mounted: FastAPI = mount(app, build(service), login)
    return mounted


def _result(of: Future[ModelIdentity | None]) -> ModelIdentity | None:
    """None while it is not there, and where it failed: the model's own error says why."""
    return of.result() if of.done() and of.exception() is None else None


class _SameOrigin:
    """Refuses what pages of other origins send, also to gradio's own routes: behind them are the
    page's buttons."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        kind = scope["type"]
        reads = kind == "http" and scope["method"] in ("GET", "HEAD")
        if kind in ("http", "websocket") and not reads and from_elsewhere(HTTPConnection(scope)):
            if kind == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            answer = PlainTextResponse("This request came from another site.", 403)
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)


def allow_basic(login: str | None) -> Callable[[Request], None]:
    """Lets those through who send "user:password" as HTTP Basic; everyone where there is none."""

    def allow(request: Request) -> None:
        if login is None:
            return
        scheme, _, code = request.headers.get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(code, validate=True)
        except ValueError:
            given = b""
        if scheme.lower() != "basic" or not secrets.compare_digest(given, login.encode()):
            raise HTTPException(401, "Log in first.", {"WWW-Authenticate": "Basic"})

    return allow


def serve(app: Any, address: str, port: int) -> None:
    """Until it is interrupted."""
    import uvicorn

    uvicorn.run(app, host=address, port=port, log_level="warning")
