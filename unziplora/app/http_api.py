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
    GET  /merge                    how far one is that learns on the model (how: zip)
    POST /merge/commands           {"command": "stop"}: ends it with what it has learned

Whoever adds these routes says who may use them: `allow` raises for a request that may not. An id or
a name in an address that is not there answers 404, what a body says that cannot be 422.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse
from fastapi.routing import APIRoute

from unziplora.app import api_bodies as bodies
from unziplora.app.auth import from_another_site
from unziplora.app.job_queue import COMMANDS
from unziplora.app.preset_files import PresetFiles
from unziplora.app.service import Service
from unziplora.errors import InvalidInput, NotFound, UnZipLoRAError
from unziplora.lora.merge_methods import DEFAULT_MU
from unziplora.lora.publish import zip_of

PREFIX = "/unziplora/v1"

Allow = Callable[[Request], None]
Body = dict[str, Any]
BODY: Any = Depends(bodies.read)  # after `allow`: nothing is read of a request that may not


class _Route(APIRoute):
    """Our errors in HTTP's words: what is not there is 404, what else the caller can mend 422, the
    rest 500."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except NotFound as error:
                raise HTTPException(404, str(error)) from error
            except InvalidInput as error:
                raise HTTPException(422, str(error)) from error
            except UnZipLoRAError as error:
                raise HTTPException(500, str(error)) from error

        return handle


def add_routes(app: FastAPI, service: Service, allow: Allow) -> None:
    """Adds every route below PREFIX. allow: raises HTTPException(401) without credentials."""

    def admitted(request: Request) -> None:
        allow(request)

    router = APIRouter(
        prefix=PREFIX,
        tags=["UnZipLoRA"],
        dependencies=[Depends(admitted), Depends(same_site)],
        route_class=_Route,
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


# Routes are plain functions, which FastAPI calls in threads: decoding an image or writing a file
# takes seconds, and the event loop must go on meanwhile.


def _post(
    router: APIRouter, path: str, summary: str, schema: bodies.Schema, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A route that reads a body. schema: what /docs says of it."""
    return router.post(path, summary=summary, openapi_extra=schema, **options)


def _add_runs(router: APIRouter, service: Service) -> None:
    @_post(
        router,
        "/runs",
        "Train a content and a style LoRA on one image",
        bodies.schema_of_start(),
    )
    def start(body: Body = BODY) -> dict[str, Any]:
        image = bodies.image_of(body.pop("image", None))
        overwrite = body.pop("overwrite", False) is True
        first = bodies.text_of(body, "start_from") or None
        body.pop("start_from", None)
        return service.start(image, body, overwrite=overwrite, start_from=first).as_json(since=0)

    @router.get("/runs", summary="All runs, without their events")
    def runs() -> list[dict[str, Any]]:
        return [job.as_json() for job in service.jobs.all()]

    @router.get("/runs/{job_id}", summary="One run, with its events from a number on")
    def run(job_id: str, since: int = 0) -> dict[str, Any]:
        return service.jobs.get(job_id).as_json(since=since)

    @_post(
        router,
        "/runs/{job_id}/commands",
        "Stop, save, preview, pause, resume, cancel",
        bodies.schema_of_command(COMMANDS),
    )
    def command(job_id: str, body: Body = BODY) -> dict[str, Any]:
        job = service.jobs.get(job_id)
        service.jobs.send(job_id, bodies.text_of(body, "command"))
        return job.as_json()

    @_post(
        router,
        "/runs/{job_id}/place",
        "Where a waiting run stands in the queue, from 0",
        bodies.schema_of_place(),
    )
    def place(job_id: str, body: Body = BODY) -> list[str]:
        service.jobs.get(job_id)
        service.jobs.move(job_id, bodies.whole_of(body, "place"))
        return [job.id for job in service.jobs.waiting()]


def _add_run_files(router: APIRouter, service: Service) -> None:
    @router.get("/runs/{job_id}/image", summary="The image trained on")
    def image(job_id: str) -> FileResponse:
        return _file(service, service.run_folder(service.jobs.get(job_id).name).image)

    @router.get("/runs/{job_id}/previews/{name}", summary="A preview")
    def preview(job_id: str, name: str) -> FileResponse:
        folder = service.run_folder(service.jobs.get(job_id).name)
        if Path(name).name != name:
            raise HTTPException(404, "There is no such file.")
        return _file(service, folder.previews / name)

    @router.get("/runs/{job_id}/report", summary="What a bug report needs, without names")
    def report(job_id: str) -> PlainTextResponse:
        return PlainTextResponse(service.report(job_id))


def _add_stored_runs(router: APIRouter, service: Service) -> None:
    @router.get("/stored-runs", summary="Runs on disk that have not ended well")
    def stored() -> list[dict[str, Any]]:
        return [{"name": run.name, "step": run.step} for run in service.runs()]

    @router.delete("/stored-runs/{name}", summary="Delete a run's folder; its pair stays")
    def delete(name: str) -> dict[str, str]:
        service.delete_run(name)
        return {"deleted": name}

    @router.get("/resumable", summary="Names of runs on disk that have a saved state")
    def resumable() -> list[str]:
        return [run.name for run in service.runs() if run.step is not None]

    schema = bodies.schema_of_name("the run's")

    @_post(router, "/resume", "Resume a run on disk", schema)
    def resume(body: Body = BODY) -> dict[str, Any]:
        return service.resume(bodies.text_of(body, "name")).as_json(since=0)

    @_post(router, "/restart", "Begin a run on disk once more from its first step", schema)
    def restart(body: Body = BODY) -> dict[str, Any]:
        return service.restart(bodies.text_of(body, "name")).as_json(since=0)


def _add_pairs(router: APIRouter, service: Service) -> None:
    @router.get("/pairs", summary="Pairs in the output folder, the newest first")
    def pairs() -> list[dict[str, str]]:
        return [pair.as_json() for pair in service.pairs()]

    @router.get("/pairs/{name}/previews", summary="The steps at which its run drew previews")
    def steps(name: str) -> list[int]:
        return list(service.preview_steps(service.pair(name).name))

    @router.get("/pairs/{name}/{role}", summary="A file of a pair: content or style")
    def file(name: str, role: str) -> FileResponse:
        return _file(service, service.file(name, role))

    @router.delete("/pairs/{name}", summary="Delete a pair and what lies beside it")
    def delete(name: str) -> list[str]:
        return service.delete(name)

    @_post(
        router,
        "/pairs/{name}/name",
        "Rename a pair, its side files and its run",
        bodies.schema_of_new_name(),
    )
    def rename(name: str, body: Body = BODY) -> dict[str, str]:
        return service.rename(name, bodies.text_of(body, "name")).as_json()

    @_post(
        router,
        "/pairs/{name}/more",
        "Train a pair for more steps, into a pair of its own",
        bodies.schema_of_steps("how many more"),
    )
    def more(name: str, body: Body = BODY) -> dict[str, Any]:
        return service.train_more(name, bodies.whole_of(body, "steps")).as_json(since=0)

    @_post(
        router,
        "/pairs/{name}/step",
        "Make a pair of a step at which its run kept the LoRAs",
        bodies.schema_of_steps("the step"),
    )
    def step(name: str, body: Body = BODY) -> dict[str, str]:
        return service.save_step(name, bodies.whole_of(body, "steps")).as_json()


def _add_presets(router: APIRouter, service: Service) -> None:
    store = PresetFiles(service.folder, service.runs_at)

    @router.get("/presets", summary="Names of the saved presets")
    def presets() -> list[str]:
        return store.names()

    @router.get("/presets/{name}", summary="The fields of a preset, as they were typed")
    def preset(name: str) -> dict[str, str]:
        return store.read(name)

    @router.put(
        "/presets/{name}",
        summary="Save a preset, in place of one of this name",
        openapi_extra=bodies.schema_of_preset(),
    )
    def save(name: str, body: Body = BODY) -> dict[str, str]:
        store.write(name, bodies.preset_of(body))
        return store.read(name)

    @router.delete("/presets/{name}", summary="Delete a preset")
    def delete(name: str) -> dict[str, str]:
        store.delete(name)
        return {"deleted": name}


def _add_products(router: APIRouter, service: Service) -> None:
    @_post(router, "/merge", "One LoRA of several files of pairs", bodies.schema_of_merge())
    def merge(body: Body = BODY) -> dict[str, str]:
        how = bodies.text_of(body, "how") or "add"
        path = service.merge_pairs(
            bodies.text_of(body, "name"),
            bodies.parts_of(body),
            how,
            mu=bodies.number_of(body, "mu", DEFAULT_MU),
            learning=bodies.zip_settings_of(body),
        )
        return {"file": path.name}

    @router.get("/merge", summary="How far a merge is that learns on the model, or null")
    def merging() -> dict[str, Any] | None:
        current = service.merges.current
        return None if current is None else current.as_json()

    @_post(
        router,
        "/merge/commands",
        "Stop it after its step, with what was learned by then",
        bodies.schema_of_command(("stop",)),
    )
    def command_merge(body: Body = BODY) -> dict[str, Any] | None:
        service.merges.send(bodies.text_of(body, "command"))
        return merging()

    @_post(
        router,
        "/sheet",
        "The figure of a content and a style, as a PNG",
        bodies.schema_of_sheet(),
        response_class=Response,
    )
    def sheet(body: Body = BODY) -> Response:
        content, style = bodies.text_of(body, "content"), bodies.text_of(body, "style")
        weights, seed = bodies.weights_of(body), bodies.whole_of(body, "seed")
        data = io.BytesIO()
        service.sheet(content, style, weights, seed).save(data, "PNG")
        return Response(data.getvalue(), media_type="image/png")

    @_post(
        router,
        "/publish",
        "A folder with both files, images and a model card",
        bodies.schema_of_publish(),
    )
    def publish(body: Body = BODY) -> dict[str, Any]:
        name, title, licence = (bodies.text_of(body, key) for key in ("name", "title", "licence"))
        folder = service.publish(name, title=title or None, licence=licence or None)
        files = (path for path in folder.rglob("*") if path.is_file())
        names = sorted(path.relative_to(folder).as_posix() for path in files)
        return {"folder": folder.name, "zip": zip_of(folder).name, "files": names}

    @_post(
        router, "/inspect", "What a LoRA file of the output folder is", bodies.schema_of_inspect()
    )
    def inspect(body: Body = BODY) -> dict[str, Any]:
        return asdict(service.inspect(bodies.text_of(body, "file")))


def _file(service: Service, path: Path) -> FileResponse:
    """404 for what is no file, and for what is reached by links below the folder."""
    if not service.is_own(path):
        raise HTTPException(404, "There is no such file.")
    return FileResponse(path, filename=path.name)
