"""Who may use the page and the API: HTTP Basic users, this machine's host names, this site's pages.

Used by the app's server, by the API's routes, and by the extension for the WebUI's own options.
"""

from __future__ import annotations

import base64
import ipaddress
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from unziplora.errors import InvalidInput

if TYPE_CHECKING:
    from fastapi import Request
    from fastapi.requests import HTTPConnection

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def users_of(text: str | None) -> list[str]:
    """ "user:password" each, of "user:password,user:password": the form of WebUIs' options."""
    return [user.strip() for user in (text or "").split(",") if user.strip()]


def users_in(path: str | Path | None) -> list[str]:
    """The users of a file, which has them as `users_of` on each line; none without a path."""
    if not path:
        return []
    lines = Path(path).read_text("utf-8").splitlines()
    return [user for line in lines for user in users_of(line)]


def check_login(login: str | None) -> str | None:
    """`login`, if it is "user:password" or None. Raises InvalidInput, without saying what it is."""
    if login is not None:
        user, _, password = login.partition(":")
        if not user or not password:
            raise InvalidInput(
                "The login has no user or no password. Give it as USER:PASSWORD, with a colon."
            )
    return login


def is_user(authorization: str, users: Sequence[str]) -> bool:
    """Whether an Authorization header is HTTP Basic of one of the users. Every user is compared, in
    a time that does not depend on how much of one agrees."""
    scheme, _, code = authorization.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        sent = base64.b64decode(code, validate=True)
    except ValueError:
        return False
    agreeing = [secrets.compare_digest(sent, user.encode()) for user in users]
    return any(agreeing)


def require_user(request: Request, users: Sequence[str]) -> None:
    """Raises HTTPException(401) for a request of none of the users; lets all in where there are
    no users."""
    from fastapi import HTTPException

    if users and not is_user(request.headers.get("authorization", ""), users):
        raise HTTPException(401, "Log in first.", {"WWW-Authenticate": "Basic"})


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address that a server listens on."""
    if address.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def names_loopback(host: str) -> bool:
    """Whether a Host header names this machine: a page whose own name was made to lead here (DNS
    rebinding) sends its own. Any port may follow, because tunnels have others than the server."""
    name = host.lower()
    if not name.endswith("]"):
        before, colon, port = name.rpartition(":")
        if colon and port.isdecimal() and port.isascii():
            name = before
    return name in LOOPBACK_NAMES


def from_another_site(request: HTTPConnection) -> bool:
    """By what browsers say of where a request comes from, which pages cannot change: programs say
    nothing. A proxy in front of a WebUI may put its own name into `host`."""
    headers = request.headers
    if (site := headers.get("sec-fetch-site")) is not None:
        return site not in ("same-origin", "none")
    if (origin := headers.get("origin")) is None:
        return False
    own = (headers.get("host"), headers.get("x-forwarded-host"))
    return urlsplit(origin).netloc not in own
