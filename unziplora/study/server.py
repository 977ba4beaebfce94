"""The study's pages: a participant's, behind a link of its own, and the organiser's results."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from pydantic import BaseModel

from unziplora.study.store import Preference, Store
from unziplora.study.trials import QUESTIONS, Question, Results, Side, Trial, trials_for

_PAGE = Path(__file__).with_name("page.html")


class Answer(BaseModel):
    """side: which of the two is better."""

    trial: int
    question: Question
    side: Side


def make_study(results: Sequence[Results], store: Store) -> FastAPI:
    """The app. Nobody sees a method's name but on the results page, which needs the key."""
    app = FastAPI(title="UnZipLoRA study", docs_url=None, redoc_url=None, openapi_url=None)
    by_method = {result.method: result for result in results}
    key = store.key()

    def trials(token: str) -> list[Trial]:
        seed = store.seed(token)
        if seed is None:
            raise HTTPException(404, "This link is not known. Ask for another.")
        return trials_for(results, seed)

    def trial(token: str, number: int) -> Trial:
        found = trials(token)
        if not 0 <= number < len(found):
            raise HTTPException(404, "There is no such comparison.")
        return found[number]

    @app.get("/p/{token}", response_class=HTMLResponse)
    def page(token: str) -> str:
        trials(token)
        return _PAGE.read_text("utf-8")

    @app.get("/p/{token}/next")
    def following(token: str) -> dict[str, Any]:
        """The first question without an answer, or how many there were."""
        found, answered = trials(token), store.answered(token)
        total = len(found) * len(QUESTIONS)
        for one in found:
            for question in QUESTIONS:
                if (one.number, question) not in answered:
                    left, right = (
                        len(by_method[m].images(name, question))
                        for m, name in (one.left, one.right)
                    )
                    return {
                        "trial": one.number, "question": question, "done": len(answered),
                        "total": total, "images": min(left, right, 4),
                    }  # fmt: skip
        return {"done": len(answered), "total": total}

    @app.post("/p/{token}/answer")
    def answer(token: str, given: Answer) -> dict[str, Any]:
        store.answer(token, trial(token, given.trial), given.question, given.side)
        return following(token)

    @app.get("/p/{token}/{number}/image")
    def trained_on(token: str, number: int) -> FileResponse:
        path = results[0].trained_on(trial(token, number).name)
        if path is None:
            raise HTTPException(404, "This image is gone.")
        return FileResponse(path, filename="image", content_disposition_type="inline")

    @app.get("/p/{token}/{number}/{question}/{side}/{index}")
    def sample(token: str, number: int, question: Question, side: Side, index: int) -> FileResponse:
        one = trial(token, number)
        method, name = one.left if side == "left" else one.right
        images = by_method[method].images(name, question)
        if not 0 <= index < len(images):
            raise HTTPException(404, "There is no such image.")
        return FileResponse(images[index], filename="image", content_disposition_type="inline")

    @app.get("/results/{given}", response_class=HTMLResponse)
    def results_page(given: str) -> str:
        _check_key(given, key)
        return _results(store)

    @app.get("/results/{given}/csv", response_class=PlainTextResponse)
    def results_csv(given: str) -> str:
        _check_key(given, key)
        return store.as_csv()

    @app.get("/results/{given}/json")
    def results_json(given: str) -> list[dict[str, Any]]:
        _check_key(given, key)
        return [asdict(preference) for preference in store.preferences()]

    return app


def _check_key(given: str, key: str) -> None:
    if not secrets.compare_digest(given.encode(), key.encode()):
        raise HTTPException(404, "This link is not known.")


def _results(store: Store) -> str:
    rows = "".join(map(_row, store.preferences()))
    left_out = len(store.inattentive())
    return (
        '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="10">'
        "<title>Results</title><style>body{font:16px system-ui;max-width:50em;margin:2em auto}"
        "td,th{padding:.3em .8em;text-align:left}</style><h1>Results</h1>"
        f"<p>{store.participants()} participants, {left_out} left out for their attention checks. "
        '<a href="?" onclick="location=location.pathname+\'/csv\';return false">CSV</a></p>'
        "<table><tr><th>preferred</th><th>over</th><th>in</th><th>share</th>"
        f"<th>95 % interval</th><th>answers</th></tr>{rows}</table>"
    )


def _row(preference: Preference) -> str:
    p = preference
    return (
        f"<tr><td>{escape(p.first)}</td><td>{escape(p.second)}</td><td>{p.question}</td>"
        f"<td>{p.share:.1%}</td><td>{p.low:.1%} to {p.high:.1%}</td><td>{p.n}</td></tr>"
    )
