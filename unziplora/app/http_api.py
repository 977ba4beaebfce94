"""The HTTP API under /unziplora/v1: the same objects that the page shows.

    POST /runs                     start: {"image": base64, "subject", "style", any setting}
    GET  /runs                     all of this program's lifetime
    GET  /runs/{id}?since=N        one, with its events from number N on
    POST /runs/{id}/commands       {"command": "stop"}; see job_queue.COMMANDS
    POST /runs/{id}/place          {"place": 0}: of those that wait, the next
    GET  /runs/{id}/image          the image trained on
    GET  /runs/{id}/previews/NAME  a preview that an event named
    GET  /runs/{id}/report         versions, plan, settings and log, without names and paths
    GET  /stored-runs              runs on disk that have not ended well; step: of their state
    DELETE /stored-runs/{name}
    GET  /resumable                the names of those that have a state
    POST /resume, POST /restart    from its state, or from its first step: {"name": ...}
    GET  /pairs                    pairs in the output folder
    GET  /pairs/{name}/{role}      a file of one
    DELETE /pairs/{name}
    POST /pairs/{name}/name        rename it: {"name": ...}
    POST /pairs/{name}/more        train it further: {"steps": 200}
    GET  /pairs/{name}/previews    steps of its run with previews
    POST /pairs/{name}/step        one of them as a pair: {"steps": 200}
    GET  /presets, GET, PUT, DELETE /presets/{name}
    POST /merge, /sheet, /publish, /inspect

Whoever adds these routes says who may use them: `allow` raises for a request that may not. An id or
a name in an address that is not there answers 404, what a body says that cannot be 422.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, PlainTextResponse

from unziplora.app import api_bodies as bodies
from unziplora.app.auth import from_another_site
from unziplora.app.own_files import is_own_file
from unziplora.app.preset_files import PresetFiles
from unziplora.app.service import Service
from unziplora.errors import InvalidInput, NotFound, UnZipLoRAError
from unziplora.lora.publish import zip_of

PREFIX = "/unziplora/v1"

T = TypeVar("T")
Allow = Callable[[Request], None]


def add_routes(app: FastAPI, service: Service, allow: Allow) -> None:
    """Adds every route below PREFIX. allow: raises HTTPException(401) without credentials."""

    def admitted(request: Request) -> None:
        allow(request)

    router = APIRouter(
        prefix=PREFIX, tags=["UnZipLoRA"], dependencies=[Depends(admitted), Depends(same_site)]
    )
    _add_runs(router, service)
    _add_run_files(router, service)
    _add_stored_runs(router, service)
    _add_pairs(router, service)
    _add_presets(router, service)
    _add_products(router, service)
    app.include_router(router)


def same_site(request: Request) -> None:
    """A page of another site cannot start or delete anything in a visitor's browser."""
    if request.method not in ("GET", "HEAD") and from_another_site(request):
        raise HTTPException(403, "This request came from another site. Use the page itself.")


def _add_runs(router: APIRouter, service: Service) -> None:
    @router.post(
        "/runs",
        summary="Train a content and a style LoRA on one image",
        openapi_extra=bodies.schema_of_start(),
    )
    async def start(request: Request) -> dict[str, Any]:
        body = await bodies.read(request)
        image = _answer(lambda: bodies.image_of(body.pop("image", None)))
        overwrite = body.pop("overwrite", False) is True
        first = bodies.text_of(body, "start_from") or None
        body.pop("start_from", None)
        # not in the event loop: a large image takes seconds to decode
        return await run_in_threadpool(
            _answer,
            lambda: service.start(image, body, overwrite=overwrite, start_from=first).as_json(0),
        )

    @router.get("/runs", summary="All runs, without their events")
    def runs() -> list[dict[str, Any]]:
        return [job.as_json() for job in service.jobs.all()]

    @router.get("/runs/{job_id}", summary="One run, with its events from a number on")
    def run(job_id: str, since: int = 0) -> dict[str, Any]:
        return _answer(lambda: service.jobs.get(job_id).as_json(since=since))

    @router.post(
        "/runs/{job_id}/commands",
        summary="Stop, save, preview, pause, resume, cancel",
        openapi_extra=bodies.schema_of_command(),
    )
    async def command(job_id: str, request: Request) -> dict[str, Any]:
        _answer(lambda: service.jobs.get(job_id))
        wanted = bodies.text_of(await bodies.read(request), "command")

        def obey() -> dict[str, Any]:
            service.jobs.send(job_id, wanted)
            return service.jobs.get(job_id).as_json()

        return await run_in_threadpool(_answer, obey)

    @router.post(
        "/runs/{job_id}/place",
        summary="Where a waiting run stands in the queue, from 0",
        openapi_extra=bodies.schema_of_place(),
    )
    async def place(job_id: str, request: Request) -> list[str]:
        _answer(lambda: service.jobs.get(job_id))
        body = await bodies.read(request)
        _answer(lambda: service.jobs.move(job_id, bodies.whole_of(body, "place")))
        return [job.id for job in service.jobs.waiting()]


def _add_run_files(router: APIRouter, service: Service) -> None:
    @router.get("/runs/{job_id}/image", summary="The image trained on")
    def image(job_id: str) -> FileResponse:
        folder = _answer(lambda: service.run_folder(service.jobs.get(job_id).name))
        return _file(service, folder.image)

    @router.get("/runs/{job_id}/previews/{name}", summary="A preview")
    def preview(job_id: str, name: str) -> FileResponse:
        folder = _answer(lambda: service.run_folder(service.jobs.get(job_id).name))
        if Path(name).name != name:
            raise HTTPException(404, "There is no such file.")
        return _file(service, folder.previews / name)

    @router.get("/runs/{job_id}/report", summary="What a bug report needs, without names")
    def report(job_id: str) -> PlainTextResponse:
        return PlainTextResponse(_answer(lambda: service.report(job_id)))


def _add_stored_runs(router: APIRouter, service: Service) -> None:
    @router.get("/stored-runs", summary="Runs on disk that have not ended well")
    def stored() -> list[dict[str, Any]]:
        return [{"name": run.name, "step": run.step} for run in service.runs()]

    @router.delete("/stored-runs/{name}", summary="Delete a run's folder; its pair stays")
    def delete(name: str) -> dict[str, str]:
        _answer(lambda: service.delete_run(name))
        return {"deleted": name}

    @router.get("/resumable", summary="Names of runs on disk that have a saved state")
    def resumable() -> list[str]:
        return [run.name for run in service.runs() if run.step is not None]

    @router.post(
        "/resume", summary="Resume a run on disk", openapi_extra=bodies.schema_of_name("the run's")
    )
    async def resume(request: Request) -> dict[str, Any]:
        name = bodies.text_of(await bodies.read(request), "name")
        return await run_in_threadpool(_answer, lambda: service.resume(name).as_json(since=0))

    @router.post(
        "/restart",
        summary="Begin a run on disk once more from its first step",
        openapi_extra=bodies.schema_of_name("the run's"),
    )
    async def restart(request: Request) -> dict[str, Any]:
        name = bodies.text_of(await bodies.read(request), "name")
        return await run_in_threadpool(_answer, lambda: service.restart(name).as_json(since=0))


def _add_pairs(router: APIRouter, service: Service) -> None:
    @router.get("/pairs", summary="Pairs in the output folder, the newest first")
    def pairs() -> list[dict[str, str]]:
        return [pair.as_json() for pair in service.pairs()]

    @router.get("/pairs/{name}/previews", summary="The steps at which its run drew previews")
    def steps(name: str) -> list[int]:
        return _answer(lambda: list(service.preview_steps(service.pair(name).name)))

    @router.get("/pairs/{name}/{role}", summary="A file of a pair: content or style")
    def file(name: str, role: str) -> FileResponse:
        return _file(service, _answer(lambda: service.file(name, role)))

    @router.delete("/pairs/{name}", summary="Delete a pair and what lies beside it")
    def delete(name: str) -> list[str]:
        return _answer(lambda: service.delete(name))

    @router.post(
        "/pairs/{name}/name",
        summary="Rename a pair, its side files and its run",
        openapi_extra=bodies.schema_of_new_name(),
    )
    async def rename(name: str, request: Request) -> dict[str, str]:
        new = bodies.text_of(await bodies.read(request), "name")
        return await run_in_threadpool(_answer, lambda: service.rename(name, new).as_json())

    @router.post(
        "/pairs/{name}/more",
        summary="Train a pair for more steps, into a pair of its own",
        openapi_extra=bodies.schema_of_steps("how many more"),
    )
    async def more(name: str, request: Request) -> dict[str, Any]:
        body = await bodies.read(request)
        steps = _answer(lambda: bodies.whole_of(body, "steps"))
        return await run_in_threadpool(
            _answer, lambda: service.train_more(name, steps).as_json(since=0)
        )

    @router.post(
        "/pairs/{name}/step",
        summary="Make a pair of a step at which its run kept the LoRAs",
        openapi_extra=bodies.schema_of_steps("the step"),
    )
    async def step(name: str, request: Request) -> dict[str, str]:
        body = await bodies.read(request)
        kept = _answer(lambda: bodies.whole_of(body, "steps"))
        return await run_in_threadpool(_answer, lambda: service.save_step(name, kept).as_json())


def _add_presets(router: APIRouter, service: Service) -> None:
    store = PresetFiles(service.folder)

    @router.get("/presets", summary="Names of the saved presets")
    def presets() -> list[str]:
        return store.names()

    @router.get("/presets/{name}", summary="The fields of a preset, as they were typed")
    def preset(name: str) -> dict[str, str]:
        return _answer(lambda: store.read(name))

    @router.put(
        "/presets/{name}",
        summary="Save a preset, in place of one of this name",
        openapi_extra=bodies.schema_of_preset(),
    )
    async def save(name: str, request: Request) -> dict[str, str]:
        body = await bodies.read(request)
        _answer(lambda: store.write(name, bodies.preset_of(body)))
        return _answer(lambda: store.read(name))

    @router.delete("/presets/{name}", summary="Delete a preset")
    def delete(name: str) -> dict[str, str]:
        _answer(lambda: store.delete(name))
        return {"deleted": name}


def _add_products(router: APIRouter, service: Service) -> None:
    @router.post(
        "/merge",
        summary="One LoRA that adds up files of pairs",
        openapi_extra=bodies.schema_of_merge(),
    )
    async def merge(request: Request) -> dict[str, str]:
        body = await bodies.read(request)
        name, parts = bodies.text_of(body, "name"), _answer(lambda: bodies.parts_of(body))
        path = await run_in_threadpool(_answer, lambda: service.merge_pairs(name, parts))
        return {"file": path.name}

    @router.post(
        "/sheet",
        summary="The figure of a content and a style, as a PNG",
        openapi_extra=bodies.schema_of_sheet(),
        response_class=Response,
    )
    async def sheet(request: Request) -> Response:
        body = await bodies.read(request)
        content, style = bodies.text_of(body, "content"), bodies.text_of(body, "style")
        weights, seed = _answer(lambda: (bodies.weights_of(body), bodies.whole_of(body, "seed")))

        def draw() -> bytes:
            data = io.BytesIO()
            service.sheet(content, style, weights, seed).save(data, "PNG")
            return data.getvalue()

        return Response(await run_in_threadpool(_answer, draw), media_type="image/png")

    @router.post(
        "/publish",
        summary="A folder with both files, images and a model card",
        openapi_extra=bodies.schema_of_publish(),
    )
    async def publish(request: Request) -> dict[str, Any]:
        body = await bodies.read(request)
        name, title, licence = (bodies.text_of(body, key) for key in ("name", "title", "licence"))
        folder = await run_in_threadpool(
            _answer, lambda: service.publish(name, title=title or None, licence=licence or None)
        )
        files = (path for path in folder.rglob("*") if path.is_file())
        names = sorted(path.relative_to(folder).as_posix() for path in files)
        return {"folder": folder.name, "zip": zip_of(folder).name, "files": names}

    @router.post(
        "/inspect",
        summary="What a LoRA file of the output folder is",
        openapi_extra=bodies.schema_of_inspect(),
    )
    async def inspect(request: Request) -> dict[str, Any]:
        name = bodies.text_of(await bodies.read(request), "file")
        return await run_in_threadpool(_answer, lambda: asdict(service.inspect(name)))


def _answer(make: Callable[[], T]) -> T:
    """Our errors in HTTP's words: what is not there is 404, what else the caller can mend 422, the
    rest 500."""
    try:
        return make()
    except NotFound as error:
        raise HTTPException(404, str(error)) from error
    except InvalidInput as error:
        raise HTTPException(422, str(error)) from error
    except UnZipLoRAError as error:
        raise HTTPException(500, str(error)) from error


def _file(service: Service, path: Path) -> FileResponse:
    """404 for what is no file, and for what is reached by links below the folder."""
    if not is_own_file(service.folder(), path):
        raise HTTPException(404, "There is no such file.")
    return FileResponse(path, filename=path.name)
