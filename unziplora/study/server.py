"""The study's pages: a participant's, behind a link of its own, and the organiser's results."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from pydantic import BaseModel, ValidationError

from unziplora.app.api_bodies import read
from unziplora.study.store import Preference, Store
from unziplora.study.trials import (
    QUESTIONS,
    Question,
    Results,
    Side,
    Trial,
    shared_names,
    trials_for,
)

_PAGE = Path(__file__).with_name("page.html")
_MOST_IMAGES = 4  # of one side
_MOST_BYTES = 10_000  # of an answer's body


class Answer(BaseModel):
    """side: which of the two is better."""

    trial: int
    question: Question
    side: Side


def make_study(results: Sequence[Results], store: Store) -> FastAPI:
    """The app. Nobody sees a method's name but on the results page, which needs the key.

    Images that are added to the folders later take no part: an answer names its comparison by a
    number, which has to mean the same for as long as there are answers. Raises InvalidInput where
    the answers are of other images or methods."""
    app = FastAPI(title="UnZipLoRA study", docs_url=None, redoc_url=None, openapi_url=None)
    pages = _Pages(results, store)
    for path, endpoint in {
        "/p/{token}": pages.page,
        "/results/{key}": pages.results,
    }.items():
        app.get(path, response_class=HTMLResponse)(endpoint)
    app.get("/p/{token}/next")(pages.following)
    app.post("/p/{token}/answer")(pages.answer)
    app.get("/p/{token}/{number}/image", response_class=FileResponse)(pages.trained_on)
    sample = "/p/{token}/{number}/{question}/{side}/{index}"
    app.get(sample, response_class=FileResponse)(pages.sample)
    app.get("/results/{key}/csv", response_class=PlainTextResponse)(pages.as_csv)
    app.get("/results/{key}/json")(pages.as_json)
    return app


class _Pages:
    """What each route answers. HTTPException 404 for links and numbers that are not known."""

    def __init__(self, results: Sequence[Results], store: Store) -> None:
        self._results, self._store = results, store
        self._by_method = {result.method: result for result in results}
        methods = [result.method for result in results]
        self._names, self._methods = store.keep_comparison(shared_names(results), methods)
        self._key = store.key()

    def _trials(self, token: str) -> list[Trial]:
        seed = self._store.seed(token)
        if seed is None:
            raise HTTPException(404, "This link is not known. Ask for another.")
        return trials_for(self._names, self._methods, seed)

    def _trial(self, token: str, number: int) -> Trial:
        found = self._trials(token)
        if not 0 <= number < len(found):
            raise HTTPException(404, "There is no such comparison.")
        return found[number]

    def page(self, token: str) -> str:
        self._trials(token)
        return _PAGE.read_text("utf-8")

    def following(self, token: str) -> dict[str, Any]:
        """The first question without an answer, or how many there were."""
        found, answered = self._trials(token), self._store.answered(token)
        count = {"done": len(answered), "total": len(found) * len(QUESTIONS)}
        for one in found:
            for question in QUESTIONS:
                if (one.number, question) not in answered:
                    images = min(
                        len(self._images(side, question)) for side in (one.left, one.right)
                    )
                    return {
                        "trial": one.number,
                        "question": question,
                        "images": min(images, _MOST_IMAGES),
                        **count,
                    }
        return dict(count)

    async def answer(self, token: str, request: Request) -> dict[str, Any]:
        """The body is read only of who has a link, and only as long as an answer may be."""
        await run_in_threadpool(self._trials, token)
        try:
            answer = Answer(**await read(request, _MOST_BYTES))
        except (ValidationError, TypeError) as error:
            raise HTTPException(422, "This is no answer. Reload the page.") from error
        return await run_in_threadpool(self._keep, token, answer)

    def _keep(self, token: str, answer: Answer) -> dict[str, Any]:
        self._store.answer(token, self._trial(token, answer.trial), answer.question, answer.side)
        return self.following(token)

    def trained_on(self, token: str, number: int) -> FileResponse:
        return _shown(self._results[0].trained_on(self._trial(token, number).name))

    def sample(
        self, token: str, number: int, question: Question, side: Side, index: int
    ) -> FileResponse:
        one = self._trial(token, number)
        images = self._images(one.left if side == "left" else one.right, question)
        return _shown(images[index] if 0 <= index < len(images) else None)

    def _images(self, side: tuple[str, str], question: Question) -> list[Path]:
        method, name = side
        return self._by_method[method].images(name, question)

    def results(self, key: str) -> str:
        _check_key(key, self._key)
        return _results(self._store, self._key)

    def as_csv(self, key: str) -> PlainTextResponse:
        _check_key(key, self._key)
        headers = {"Content-Disposition": 'attachment; filename="study.csv"'}
        return PlainTextResponse(self._store.as_csv(), headers=headers, media_type="text/csv")

    def as_json(self, key: str) -> list[dict[str, Any]]:
        _check_key(key, self._key)
        return [asdict(preference) for preference in self._store.preferences()]


def _shown(path: Path | None) -> FileResponse:
    """An image under a name that says nothing of whose it is."""
    if path is None:
        raise HTTPException(404, "There is no such image.")
    return FileResponse(path, filename="image", content_disposition_type="inline")


def _check_key(key: str, expected: str) -> None:
    if not secrets.compare_digest(key.encode(), expected.encode()):
        raise HTTPException(404, "This link is not known.")


def _results(store: Store, key: str) -> str:
    rows = "".join(map(_row, store.preferences()))
    left_out = len(store.inattentive())
    return (
        '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="10">'
        "<title>Results</title><style>body{font:16px system-ui;max-width:50em;margin:2em auto}"
        "td,th{padding:.3em .8em;text-align:left}</style><h1>Results</h1>"
        f"<p>{store.participants()} participants, {left_out} left out for their attention checks. "
        f'<a href="{escape(key)}/csv">CSV</a></p>'
        "<table><tr><th>preferred</th><th>over</th><th>in</th><th>share</th>"
        f"<th>95 % interval</th><th>answers</th></tr>{rows}</table>"
    )


def _row(preference: Preference) -> str:
    p = preference
    return (
        f"<tr><td>{escape(p.first)}</td><td>{escape(p.second)}</td><td>{p.question}</td>"
        f"<td>{p.share:.1%}</td><td>{p.low:.1%} to {p.high:.1%}</td><td>{p.n}</td></tr>"
    )
