"""Runs beside the one that is shown, as HTML: waiting, paused and unfinished ones."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from unziplora.app.job_queue import Job
from unziplora.ui.html import button

_MOST_UNFINISHED = 3  # on the Train tab; Results lists all


def queue(jobs: Sequence[Job]) -> str:
    """Other runs that wait, in the order in which they will run, or are paused, with what can be
    done with each."""
    listed = [job for job in jobs if job.state in ("waiting", "paused")]
    if not listed:
        return ""
    waiting = [job for job in listed if job.state == "waiting"]
    rows = "".join(_row(job, first=job is waiting[0] if waiting else False) for job in listed)
    return (
        f'<div class="uz-title">Queue <span>{len(listed)}</span></div>'
        '<table class="uz-table uz-queue"><thead><tr><th>name</th><th>words</th><th>steps</th>'
        f"<th>rank</th><th>state</th><th></th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _row(job: Job, first: bool) -> str:
    settings = job.settings
    words = f"{settings.subject} · {settings.style}" if settings else ""
    steps = job.steps or (settings.steps if settings else None)
    progress = f"{job.step} of {steps}" if job.step else str(steps or "default")
    rank = str((settings.rank if settings else None) or "default")
    cells = "".join(f"<td>{escape(text)}</td>" for text in (words, progress, rank, job.state))
    commands = ["resume"] if job.state == "paused" else [] if first else ["run next"]
    buttons = "".join(_row_button(job, command) for command in (*commands, "cancel"))
    return (
        f"<tr><th>{escape(job.name)}</th>{cells}"
        f'<td><div class="uz-buttons">{buttons}</div></td></tr>'
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
