"""Who may call our routes: whoever may call the WebUI's own, which guards only those."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path
from typing import Any

from unziplora.hosts.webui.options import argument


def allow(request: Any) -> None:
    """Whichever credentials the WebUI asks for: --api-auth's, or a login to its page. Raises
    HTTPException 401."""
    from fastapi import HTTPException

    users = _users(argument("api_auth"))
    page_users = _users(argument("gradio_auth")) + _users_in(argument("gradio_auth_path"))
    if not users and not page_users:
        return
    scheme, _, code = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            login = base64.b64decode(code, validate=True)
        except ValueError:
            login = b""
        if any(secrets.compare_digest(login, user.encode()) for user in users or page_users):
            return
    tokens = getattr(request.app, "tokens", None) or {}
    if page_users and not users and any(value in tokens for value in request.cookies.values()):
        return
    raise HTTPException(401, "Log in first.", {"WWW-Authenticate": "Basic"})


def _users(logins: str | None) -> list[str]:
    return [user.strip() for user in (logins or "").split(",") if user.strip()]


def _users_in(path: str | None) -> list[str]:
    if not path:
        return []
    lines = Path(path).read_text("utf-8").splitlines()
    return [user for line in lines for user in _users(line)]
