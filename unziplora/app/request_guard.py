"""What every request to `unziplora app` passes before a route sees it, gradio's routes included.

In this order: the name that it was sent to (on loopback), the site that it comes from, whether the
page or the API needs such a route, the page's login, how large its body is and how fast it comes,
and what it says for the page's fields. Limits bound memory, open files and time, so that nothing
that is sent can keep a run from saving.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from fastapi.requests import HTTPConnection
from fastapi.responses import JSONResponse

from unziplora.app import uploads
from unziplora.app.auth import from_another_site, names_loopback
from unziplora.app.page_values import PageValues
from unziplora.errors import InvalidInput

API = "/unziplora/v1"
GRACE_SECONDS = 30.0  # for a body, and from then on
SLOWEST = 64_000  # bytes a second
MOST_LARGE = 8  # bodies of more than SMALL bytes at once
SMALL = 1_000_000
MOST_API, MOST_UPLOAD = 64_000_000, 4_000_000_000  # bytes of a body

# gradio's routes that the page needs; gradio 5 and 6 have them below /gradio_api as well. Others of
# its routes fetch addresses, edit code or show who else is here.
_READ = re.compile(
    r"/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|login_check|token|user|app_id|"
    r"logout|info|startup-events|upload_progress|queue/data|docs|docs/oauth2-redirect|redoc|"
    r"openapi\.json)?/?|/(static|assets|svelte|heartbeat)/.*"
)
_FILE = re.compile(r"/file=(?P<path>.*)", re.DOTALL)
_CALL = re.compile(r"/(run|api)/[^/]+/?|/queue/join")
_WRITE = re.compile(r"/(login|reset|cancel)/?|/heartbeat/[^/]+")
_UPLOAD = re.compile(r"/upload/?")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Refusal(Exception):
    """status: of HTTP; text: what is answered."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class RequestGuard:
    """An ASGI middleware. page: the kinds of the page's fields; loopback: whether the server
    listens on this machine only; logged_in: whether a request's cookies are those of a login to
    the page, or it needs none."""

    def __init__(
        self,
        app: Any,
        page: Callable[[], PageValues],
        loopback: bool,
        logged_in: Callable[[HTTPConnection], bool] = lambda _: True,
    ) -> None:
        self._app, self._page, self._loopback = app, page, loopback
        self._logged_in = logged_in
        self._large = 0

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:  # the page uses none
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Any, receive: Receive, send: Send) -> None:
        try:
            kind = self._admit(HTTPConnection(scope), scope)
            if kind is None:
                await self._app(scope, receive, send)
                return
            await self._with_body(kind, scope, receive, send)
        except Refusal as refusal:
            headers = {"connection": "close"}  # what is left of the body is not read
            answer = JSONResponse({"detail": refusal.text}, refusal.status, headers)
            await answer(scope, receive, send)

    def _admit(self, request: HTTPConnection, scope: Any) -> str | None:
        """What kind of body the request has: "api", "call", "upload", "small"; None: none that
        anybody reads. Raises Refusal."""
        if self._loopback and not names_loopback(request.headers.get("host", "")):
            raise Refusal(403, "This address is not this machine's. Open http://localhost instead.")
        reads = scope["method"] in ("GET", "HEAD")
        if not reads and from_another_site(request):
            raise Refusal(403, "This request came from another site. Use the page itself.")
        kind = _kind_of(scope["path"], reads)
        if kind is None:
            raise Refusal(404, "There is no such page.")
        if kind in ("call", "upload") and not self._logged_in(request):
            raise Refusal(401, "Log in first.")
        return None if kind == "read" else kind

    async def _with_body(self, kind: str, scope: Any, receive: Receive, send: Send) -> None:
        limits = {"api": MOST_API, "call": self._page().largest_call, "upload": MOST_UPLOAD}
        most = limits.get(kind, SMALL)
        body = _Body(receive, most)
        declared = _declared(scope)
        if declared is not None and declared > most:
            raise body.too_large()
        large = kind != "small" and (declared is None or declared > SMALL)
        if large and self._large >= MOST_LARGE:
            raise Refusal(503, "Too much is being sent at once. Try again in a minute.")
        self._large += large
        try:
            if kind == "upload":
                await asyncio.to_thread(uploads.make_room)
            if kind == "call":
                body.replay(await self._checked(body))
            await self._answered(body, scope, send)
        finally:
            self._large -= large

    async def _checked(self, body: _Body) -> bytes:
        """The whole body of a call of the page's function. Raises Refusal."""
        data = await body.whole()
        try:
            # a large one takes a second to read, in which the loop must not stand still
            await asyncio.to_thread(self._page().check, data)
        except InvalidInput as error:
            raise Refusal(422, str(error)) from error
        return data

    async def _answered(self, body: _Body, scope: Any, send: Send) -> None:
        """The route's answer, or a Refusal where the body came too slowly or was too large: then
        what the route makes of its sudden end is not sent."""
        began = False

        async def sending(message: Message) -> None:
            nonlocal began
            if body.refusal is None:
                began = True
                await send(message)

        try:
            await self._app(scope, body.receive, sending)
        except Exception:
            if body.refusal is None:
                raise
        if body.refusal is not None and not began:
            raise body.refusal


def _kind_of(path: str, reads: bool) -> str | None:
    """ "read", or what kind of body a request to this route has; None: the page needs no such
    route."""
    if path == API or path.startswith(API + "/"):
        return "read" if reads else "api"
    path = path.removeprefix("/gradio_api")
    if reads:
        file = _FILE.fullmatch(path)
        own = _READ.fullmatch(path) or (file and uploads.is_upload(unquote(file["path"])))
        return "read" if own else None
    kinds = {"call": _CALL, "upload": _UPLOAD, "small": _WRITE}
    return next((kind for kind, routes in kinds.items() if routes.fullmatch(path)), None)


class _Body:
    """A request's body as it arrives, with a limit on its size and its time."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most = receive, most
        self._size, self._began = 0, time.monotonic()
        self._ended = False
        self._replayed: bytes | None = None
        self.refusal: Refusal | None = None

    def too_large(self) -> Refusal:
        return Refusal(413, f"The body is larger than {self._most / 1e6:g} MB. Send less.")

    async def receive(self) -> Message:
        """The next part; after a refusal, that the client is gone."""
        if self._replayed is not None:
            data, self._replayed = self._replayed, None
            return {"type": "http.request", "body": data, "more_body": False}
        if self.refusal is not None:
            return {"type": "http.disconnect"}
        if self._ended:  # from here on it only says when the client goes
            return await self._receive()
        left = self._began + GRACE_SECONDS + self._size / SLOWEST - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.001))
        except asyncio.TimeoutError:
            self.refusal = Refusal(408, "The body came too slowly. Send it again.")
            return {"type": "http.disconnect"}
        self._size += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self._size > self._most:
            self.refusal = self.too_large()
            return {"type": "http.disconnect"}
        return message

    async def whole(self) -> bytes:
        """Raises Refusal."""
        parts = []
        while not self._ended:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise self.refusal or Refusal(400, "The body was cut off. Send it again.")
            parts.append(message.get("body", b""))
        return b"".join(parts)

    def replay(self, data: bytes) -> None:
        """What `receive` gives next."""
        self._replayed = data


def _declared(scope: Any) -> int | None:
    """The body's length in bytes; None where it comes in chunks."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" in headers or not length.isdigit():
        return None
    return int(length[:20])
