"""Runs beside the one that is shown, as HTML: waiting, paused and unfinished ones."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from unziplora.app.job_queue import Job
from unziplora.ui.html import button

_MOST_UNFINISHED = 3  # on the Train tab; Results lists all


def queue(jobs: Sequence[Job]) -> str:
    """Other runs that wait or are paused, with what can be done with each."""
    waiting = [job for job in jobs if job.state in ("waiting", "paused")]
    if not waiting:
        return ""
    rows = "".join(
        f"<li><b>{escape(job.name)}</b><span>{job.state}</span>"
        + (_row_button(job, "resume") if job.state == "paused" else "")
        + _row_button(job, "cancel")
        + "</li>"
        for job in waiting
    )
    return (
        f'<div class="uz-title">Queue <span>{len(waiting)}</span></div>'
        f'<ul class="uz-rows">{rows}</ul>'
    )


def unfinished(names: Sequence[str]) -> str:
    """Runs on disk that can continue, offered where no run is shown, as after a restart."""
    rows = "".join(
        f"<li><b>{escape(name)}</b>"
        + button("Resume", "train", {"do": "resume run", "name": name}, f"resume {name}")
        + "</li>"
        for name in names[:_MOST_UNFINISHED]
    )
    return (
        f'<div class="uz-title">Unfinished runs <span>{len(names)}; all of them are on the '
        f'Results tab</span></div><ul class="uz-rows">{rows}</ul>'
    )


def _row_button(job: Job, command: str) -> str:
    return button(
        command.capitalize(), "train", {"do": command, "id": job.id}, f"{command} {job.name}"
    )
