"""The HTTP API under /unziplora/v1: the same objects that the page shows.

    POST /runs                     start: {"image": base64, "subject", "style", any setting}
    GET  /runs                     all of this program's lifetime
    GET  /runs/{id}?since=N        one, with its events from number N on
    POST /runs/{id}/commands       {"command": "stop"}; see jobs.COMMANDS
    GET  /runs/{id}/image        the image trained on
    GET  /runs/{id}/previews/NAME  a preview that an event named
    GET  /runs/{id}/report         versions, plan, settings and log, without names and paths
    GET  /resumable, POST /resume  runs on disk that can go on: {"name": ...}
    GET  /pairs                    pairs in the output folder
    GET  /pairs/{name}/{role}      a file of one
    DELETE /pairs/{name}

Whoever adds these routes says who may use them: `allow` raises for a request that may not.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.requests import HTTPConnection
from fastapi.responses import FileResponse, PlainTextResponse

from unziplora.app.service import Service
from unziplora.errors import InvalidInput, UnZipLoRAError

PREFIX = "/unziplora/v1"
MOST_BYTES = 64_000_000  # of a body: a large image in base64

T = TypeVar("T")
Allow = Callable[[Request], None]


def add_routes(app: FastAPI, service: Service, allow: Allow) -> None:
    """Adds every route below PREFIX. allow: raises HTTPException(401) for a stranger."""

    def admitted(request: Request) -> None:
        allow(request)

    router = APIRouter(
        prefix=PREFIX, tags=["UnZipLoRA"], dependencies=[Depends(admitted), Depends(same_site)]
    )

    @router.post("/runs", summary="Train a content and a style LoRA on one image")
    async def start(request: Request) -> dict[str, Any]:
        body = await _body(request)
        image = _image(body.pop("image", None))
        overwrite = body.pop("overwrite", False) is True
        # not in the event loop: a large image takes seconds to decode
        return await run_in_threadpool(
            _told, lambda: service.start(image, body, overwrite=overwrite).as_json(since=0)
        )

    @router.get("/runs", summary="All runs, without their events")
    def runs() -> list[dict[str, Any]]:
        return [job.as_json() for job in service.jobs.all()]

    @router.get("/runs/{job_id}", summary="One run, with its events from a number on")
    def run(job_id: str, since: int = 0) -> dict[str, Any]:
        return _told(lambda: service.jobs.get(job_id).as_json(since=since))

    @router.post("/runs/{job_id}/commands", summary="Stop, save, preview, pause, resume, cancel")
    async def command(job_id: str, request: Request) -> dict[str, Any]:
        said = str((await _body(request)).get("command", ""))

        def obey() -> dict[str, Any]:
            service.jobs.send(job_id, said)
            return service.jobs.get(job_id).as_json()

        return await run_in_threadpool(_told, obey)

    @router.get("/runs/{job_id}/image", summary="The image trained on")
    def image(job_id: str) -> FileResponse:
        job = _told(lambda: service.jobs.get(job_id))
        return _file(service.folder(), service.run_folder(job.name).image)

    @router.get("/runs/{job_id}/previews/{name}", summary="A preview")
    def preview(job_id: str, name: str) -> FileResponse:
        job = _told(lambda: service.jobs.get(job_id))
        if Path(name).name != name:
            raise HTTPException(404, "There is no such file.")
        return _file(service.folder(), service.run_folder(job.name).previews / name)

    @router.get("/runs/{job_id}/report", summary="What a bug report needs, without names")
    def report(job_id: str) -> PlainTextResponse:
        return PlainTextResponse(_told(lambda: service.report(job_id)))

    @router.get("/resumable", summary="Runs on disk that can go on")
    def resumable() -> list[str]:
        return service.resumable()

    @router.post("/resume", summary="Go on with a run on disk")
    async def resume(request: Request) -> dict[str, Any]:
        name = str((await _body(request)).get("name", ""))
        return await run_in_threadpool(_told, lambda: service.resume(name).as_json(since=0))

    @router.get("/pairs", summary="Pairs in the output folder, the newest first")
    def pairs() -> list[dict[str, str]]:
        return [pair.as_json() for pair in service.pairs()]

    @router.get("/pairs/{name}/{role}", summary="A file of a pair: content or style")
    def file(name: str, role: str) -> FileResponse:
        pair = _told(lambda: service.pair(name))
        paths = {"content": pair.content, "style": pair.style}
        if role not in paths:
            raise HTTPException(404, "A pair has a content and a style file.")
        return _file(service.folder(), paths[role])

    @router.delete("/pairs/{name}", summary="Delete a pair and what lies beside it")
    def delete(name: str) -> list[str]:
        return _told(lambda: service.delete(name))

    app.include_router(router)


def same_site(request: Request) -> None:
    """A page of another site cannot start or delete anything in a visitor's browser."""
    if request.method not in ("GET", "HEAD") and from_elsewhere(request):
        raise HTTPException(403, "This request came from another site.")


def from_elsewhere(asked: HTTPConnection) -> bool:
    """Whether a browser says that a page of another origin asks; other programs say nothing.

    Browsers name the site to https and to this machine, and the origin to any address. Behind a
    proxy the page's own address is in X-Forwarded-Host, which no page of another site can send.
    """
    headers = asked.headers
    if (site := headers.get("sec-fetch-site")) is not None:
        return site not in ("same-origin", "none")
    if (origin := headers.get("origin")) is None:
        return False
    own = (headers.get("host"), headers.get("x-forwarded-host"))
    return urlsplit(origin).netloc not in own


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request; never more than MOST_BYTES are read."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise HTTPException(415, "Send a JSON object with content-type application/json.")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise HTTPException(413, f"The body is larger than {MOST_BYTES // 1_000_000} MB.")
        parts.append(part)
    try:
        body = json.loads(b"".join(parts))
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise HTTPException(422, "The body is not a JSON object.")
    return body


def _image(given: Any) -> bytes:
    """Of base64, with or without the "data:image/png;base64," of browsers."""
    if not isinstance(given, str) or not given:
        raise HTTPException(422, "There is no image. Send it as base64 in `image`.")
    _, _, data = given.rpartition("base64,")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(422, "The image is not base64.") from error


def _told(make: Callable[[], T]) -> T:
    """Our errors in HTTP's words: what the caller can mend is 422, the rest 500."""
    try:
        return make()
    except InvalidInput as error:
        raise HTTPException(422, str(error)) from error
    except UnZipLoRAError as error:
        raise HTTPException(500, str(error)) from error


def _file(folder: Path, path: Path) -> FileResponse:
    """404 for what is no file, and for what is reached by links below the folder."""
    try:
        straight = folder.resolve() / path.relative_to(folder)
        inside = path.is_file() and path.resolve() == straight
    except (OSError, ValueError):  # a name that no file can have
        inside = False
    if not inside:
        raise HTTPException(404, "There is no such file.")
    return FileResponse(path, filename=path.name)
