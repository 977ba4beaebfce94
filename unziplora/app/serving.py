"""The web server of `unziplora app`: its socket, its limits on connections, and its end.

A signal ends it so: the run is stopped, which saves its state; meanwhile open connections are
closed; the process ends when both are done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from unziplora.errors import InvalidInput

CLOSING_SECONDS = 1  # for answers that are under way when the program ends
IDLE_SECONDS = 15.0  # that a connection may have no whole request
MOST_CONNECTIONS = 200


def serve(app: Any, address: str, port: int, close: Callable[[], None] = lambda: None) -> None:
    """Until a signal comes: SIGINT raises KeyboardInterrupt then, and others end the process as
    they would have done. close: called in a thread when the signal has come; the process waits for
    it. Raises InvalidInput where nothing can listen there."""
    import uvicorn

    listening = listen(address, port)
    config = uvicorn.Config(
        app,
        http=limited(most_connections()),
        ws="none",
        log_level="warning",
        timeout_keep_alive=round(IDLE_SECONDS),
        timeout_graceful_shutdown=CLOSING_SECONDS,
    )
    print(f"http://{_shown(address)}:{listening.getsockname()[1]}", flush=True)
    server = _server_class(uvicorn)(config, close)
    with _hangup_ends(server):
        server.run(sockets=[listening])


def most_connections() -> int:
    """At most a quarter of the files that the process may have open: a run needs the rest."""
    try:
        import resource
    except ImportError:  # Windows
        return MOST_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(16, min(MOST_CONNECTIONS, soft // 4))


def listen(address: str, port: int) -> socket.socket:
    """Raises InvalidInput where nothing can listen there."""
    if not 0 <= port <= 65535:
        raise InvalidInput(f"There is no port {port}. Choose one from 1 to 65535.")
    try:
        family, _, _, _, place = socket.getaddrinfo(
            address.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(place[:2], family=family, backlog=128)  # type: ignore[arg-type]
    except (OSError, UnicodeError) as error:
        raise InvalidInput(
            f"Nothing can listen on port {port} of {address} ({_why(error)}). Choose another port "
            "or address."
        ) from error


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or "no such address"


def _shown(address: str) -> str:
    return f"[{address.strip('[]')}]" if ":" in address else address


def _server_class(uvicorn: Any) -> Any:
    """uvicorn is imported only where it serves: a WebUI may have none."""

    class Server(uvicorn.Server):  # type: ignore[misc]
        def __init__(self, config: Any, close: Callable[[], None]) -> None:
            super().__init__(config)
            self._close = close

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            closing = threading.Thread(target=self._close, name="unziplora-close", daemon=True)
            closing.start()
            # pages that are open listen for as long as they live: their end is no error
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            await super().shutdown(sockets)
            while closing.is_alive() and not self.force_exit:  # a second Ctrl-C waits for nothing
                await asyncio.sleep(0.05)

    return Server


@contextlib.contextmanager
def _hangup_ends(server: Any) -> Iterator[None]:
    """SIGHUP, of a terminal that is closed, ends the server like SIGTERM; not under nohup."""
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        yield
        return
    came = []

    def end(number: int, frame: Any) -> None:
        came.append(number)
        server.should_exit = True

    earlier = signal.signal(hangup, end)
    try:
        yield
    finally:
        signal.signal(hangup, earlier)
        if came:
            signal.raise_signal(hangup)


def limited(most: int) -> type[asyncio.Protocol]:
    """uvicorn's protocol with a limit on connections, and on how long one may be without a request:
    its own limits begin with the first request."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class Limited(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.abort()
            else:
                self.loop.call_later(IDLE_SECONDS, self._close_idle, None)

        def _close_idle(self, earlier: Any) -> None:
            if self.transport.is_closing():
                return
            cycle = getattr(self, "cycle", None)
            idle = cycle is None or cycle.response_complete
            if idle and cycle is earlier:
                self.transport.close()
            else:
                self.loop.call_later(IDLE_SECONDS, self._close_idle, cycle if idle else self)

    return Limited
