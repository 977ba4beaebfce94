"""The API and the page's buttons under fire: through FastAPI, and through gradio's own queue-less
calls of the page's functions. A case passes if it is answered in a sentence (never a 500, never a
trace), and nothing is written outside the output folder; how much processor time the slowest took
is reported."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.testclient import TestClient

from benchmarks.reliability.damage import (
    ODD_VALUES,
    ODD_WORDS,
    damaged_bytes,
    damaged_json,
    odd_word,
)
from benchmarks.reliability.small import image
from unziplora.app.http_api import PREFIX, add_routes
from unziplora.app.job import ENDED
from unziplora.app.job_queue import COMMANDS
from unziplora.app.service import Service


@dataclass
class Result:
    """answers: how many of each kind (an HTTP status, "refused", "done"), started: runs, slowest:
    processor seconds of one case."""

    cases: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    started: int = 0
    slowest: float = 0.0
    findings: list[str] = field(default_factory=list)

    def count(self, answer: str, seconds: float) -> None:
        self.cases += 1
        self.answers[answer] = self.answers.get(answer, 0) + 1
        self.slowest = max(self.slowest, seconds)


def api(count: int, make_host: Callable[[], Any], folder: Path, seed: int = 0) -> Result:
    """`count` requests, each damaged somewhere: route, method, headers or body."""
    result, rng = Result(), Random(seed)
    service = _service(make_host, folder)
    app = FastAPI()
    add_routes(app, service, lambda request: None)
    with TestClient(app, raise_server_exceptions=False) as client, _nothing_beside(folder, result):
        for _ in range(count):
            method, path, options = _request(rng, service)
            began = time.process_time()
            try:
                answer = client.request(method, path, **options)
            except UnicodeEncodeError:  # the client itself cannot send it
                continue
            what = f"{method} {path!r} {str(options)[:300]}"
            result.count(str(answer.status_code), time.process_time() - began)
            if answer.status_code >= 500:
                result.findings.append(f"{what}: {answer.status_code} {answer.text[:200]}")
            _quiet(service)
        result.started = len(service.jobs.all())
        _end(service)
    return result


def page(count: int, make_host: Callable[[], Any], folder: Path, seed: int = 0) -> Result:
    """`count` calls of the page's functions, with anything in their fields."""
    from unziplora.ui.page import build

    result, rng = Result(), Random(seed)
    service = _service(make_host, folder)
    calls = _functions(build(service))
    with _nothing_beside(folder, result):
        for _ in range(count):
            name, function, wanted = rng.choice(calls)
            given = [_field(rng, field, service) for field in wanted]
            began, what = time.process_time(), f"{name}({str(given)[:300]})"
            try:
                given = [_read(field, value) for field, value in zip(wanted, given, strict=True)]
            except Exception:  # gradio refuses it before we are called
                result.count("refused by gradio", time.process_time() - began)
                continue
            try:
                shown = str(function(*given))
                answer = "refused" if "uz-error" in shown else "done"
                if "Unexpected error" in shown:
                    result.findings.append(f"{what}: {shown[:300]}")
                if "<script" in shown or "<b>x</b>" in shown:
                    result.findings.append(f"{what}: HTML that is not inert")
            except Exception as error:
                answer = "raised"
                result.findings.append(f"{what}: {type(error).__name__}: {error}")
            result.count(answer, time.process_time() - began)
            _quiet(service)
        result.started = len(service.jobs.all())
        _end(service)
    return result


def _service(make_host: Callable[[], Any], folder: Path) -> Service:
    host = make_host()
    return Service(lambda: host, lambda: folder / "out")


def _request(rng: Random, service: Service) -> tuple[str, str, dict[str, Any]]:
    known = [job.id for job in service.jobs.all()][-3:]
    word = quote(rng.choice([odd_word(rng), "..%2f..", "pair", *known]).encode("utf-8", "replace"))
    routes = [
        "POST /runs", "POST /runs", "POST /runs", "GET /resumable", "POST /resume", "GET /pairs",
        f"GET /runs/{word}", f"GET /runs/{word}?since={_since(rng)}", f"POST /runs/{word}/commands",
        f"GET /runs/{word}/image", f"GET /runs/{word}/previews/{word}",
        f"GET /runs/{word}/report", f"GET /pairs/{word}/content", f"GET /pairs/{word}/{word}",
        f"DELETE /pairs/{word}", "GET /stored-runs", f"DELETE /stored-runs/{word}",
        "POST /restart", "POST /merge", "POST /publish", "POST /inspect", "POST /sheet",
    ]  # fmt: skip
    method, path = rng.choice(routes).split(" ", 1)
    path = PREFIX + path
    if rng.random() < 0.1:
        method = rng.choice(("GET", "POST", "DELETE", "PUT", "HEAD", "PATCH"))
    headers = {"content-type": "application/json"}
    if rng.random() < 0.1:
        headers["content-type"] = rng.choice(("text/plain", "", "application/json;x", "*/*"))
    body = _body(rng, path)
    if rng.random() < 0.1:
        body = damaged_bytes(body, rng)
    return method, path, {"content": body, "headers": headers}


def _since(rng: Random) -> str:
    return quote(str(rng.choice(ODD_VALUES)).encode("utf-8", "replace"))


def _body(rng: Random, path: str) -> bytes:
    if path.endswith("/commands"):
        good: dict[str, Any] = {"command": rng.choice(COMMANDS)}
    elif path.endswith(("/resume", "/restart", "/publish")):
        good = {"name": rng.choice(ODD_WORDS)}
    elif path.endswith("/merge"):
        part = {"pair": rng.choice(ODD_WORDS), "role": "content", "weight": 1}
        good = {"name": odd_word(rng), "parts": [part]}
    elif path.endswith("/inspect"):
        good = {"file": rng.choice(ODD_WORDS)}
    elif path.endswith("/sheet"):
        good = {"content": rng.choice(ODD_WORDS), "style": "pair", "seed": 1, "style_weight": 1}
    else:
        file = io.BytesIO()
        image().save(file, "PNG")
        data = file.getvalue() if rng.random() < 0.8 else damaged_bytes(file.getvalue(), rng)
        good = {
            "image": base64.b64encode(data).decode(), "subject": "cat", "style": "ink",
            "name": odd_word(rng) if rng.random() < 0.5 else None, "steps": 2, "rank": 1,
            "resolution": 64, "seed": 1, "overwrite": rng.random() < 0.2,
        }  # fmt: skip
    text = json.dumps(good) if rng.random() < 0.3 else damaged_json(json.dumps(good), rng)
    return text.encode("utf-8", "surrogatepass")


def _read(field: Any, value: Any) -> Any:
    """As gradio reads it from what a browser sends; images and files come as ours read them."""
    if type(field).__name__ in ("Image", "File", "State"):
        return value
    return field.preprocess(value)


def _functions(built: Any) -> list[tuple[str, Callable[..., Any], list[Any]]]:
    """The page's functions, with the fields that each reads."""
    return [
        (function.name, _with_request(function.fn), function.inputs)
        for function in built.fns.values()
        if function.fn is not None
    ]


def _with_request(function: Callable[..., Any]) -> Callable[..., Any]:
    """As gradio calls it: with the request, where the function asks for one."""
    from gradio import Request
    from gradio.helpers import special_args

    visitor = Request(client={"host": "127.0.0.1"}, headers={})

    def call(*values: Any) -> Any:
        return function(*special_args(function, list(values), request=visitor)[0])

    return call


def _field(rng: Random, field: Any, service: Service) -> Any:
    """What a browser may send of a field, and what somebody may send instead."""
    kind = type(field).__name__
    if kind not in ("State", "Image", "File", "Textbox") and rng.random() < 0.9:
        return field.value  # as it is set up
    if kind == "State":  # which lies with the server
        return rng.choice((("", ""), ("pair", odd_word(rng)), ("run", odd_word(rng))))
    if kind == "Image":
        file = io.BytesIO()
        image().save(file, "PNG")
        good = file.getvalue()
        return rng.choice((None, good, good, damaged_bytes(good, rng)))
    if rng.random() < 0.05:
        return rng.choice(ODD_VALUES)
    if kind in ("Number", "Slider"):
        return rng.choice((None, 0, 1, 2, 2.5, -1, 1e9, float("nan"), 64))
    if kind == "Checkbox":
        return rng.random() < 0.5
    if kind == "File":
        return rng.choice((None, "/nothing", "\x00", str(service.folder())))
    row = {"do": rng.choice((*COMMANDS, "delete")), "name": odd_word(rng), "use": "both"}
    if jobs := service.jobs.all():
        row["id"] = rng.choice(jobs).id
        row["name"] = rng.choice((row["name"], jobs[-1].name))
    row_text = json.dumps(row)
    return rng.choice(
        (None, "", odd_word(rng), "cat", "ink", row_text, damaged_json(row_text, rng))
    )


def _quiet(service: Service) -> None:
    """Keeps the queue short, so that a case is measured and not what earlier ones began."""
    waiting = [job for job in service.jobs.all() if job.state not in ENDED]
    if len(waiting) > 3:
        for job in waiting:
            service.jobs.send(job.id, "stop")


def _end(service: Service) -> None:
    for job in service.jobs.all():
        service.jobs.send(job.id, "stop")
    while any(job.state not in ENDED for job in service.jobs.all()):
        time.sleep(0.05)


@contextlib.contextmanager
def _nothing_beside(folder: Path, result: Result) -> Iterator[None]:
    """Whatever is written lies in the output folder, under names of ours."""
    yield
    beside = [path.name for path in folder.iterdir() if path.name != "out"]
    beside += [path.name for path in (folder / "out").rglob(".*.tmp")]
    if beside:
        result.findings.append(f"{beside} were left")
