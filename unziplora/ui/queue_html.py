"""Runs beside the one that is shown, as HTML: waiting, paused and unfinished ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType

from unziplora.app.job import Job
from unziplora.ui.html import button, rough_duration

_MOST_UNFINISHED = 3  # on the Train tab; Results lists all


def queue(jobs: Sequence[Job], seconds: Mapping[str, float | None] = MappingProxyType({})) -> str:
    """Other runs that wait, in the order in which they will run, or are paused, with what can be
    done with each. seconds: that a run will take, by its id, where that is known."""
    listed = [job for job in jobs if job.state in ("waiting", "paused")]
    if not listed:
        return ""
    waiting = [job for job in listed if job.state == "waiting"]
    rows = "".join(_row(job, job in waiting[:1], seconds.get(job.id)) for job in listed)
    return (
        f'<div class="uz-title">Queue <span>{len(listed)}</span></div>'
        '<table class="uz-table uz-queue"><thead><tr><th>name</th><th>words</th><th>steps</th>'
        f"<th>rank</th><th>time</th><th>state</th><th>actions</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _row(job: Job, first: bool, seconds: float | None) -> str:
    time = "-" if seconds is None else f"about {rough_duration(seconds)}"
    texts = (*_described(job), time, job.state)
    cells = "".join(f"<td>{escape(text)}</td>" for text in texts)
    commands = ["resume"] if job.state == "paused" else [] if first else ["run next"]
    if job.editable:
        commands.append("edit")
    buttons = "".join(_row_button(job, command) for command in (*commands, "cancel"))
    return (
        f"<tr><th>{escape(job.name)}</th>{cells}"
        f'<td><div class="uz-buttons">{buttons}</div></td></tr>'
    )


def _described(job: Job) -> tuple[str, str, str]:
    """A run's words, steps and rank."""
    settings = job.settings
    steps = job.steps or (settings.steps if settings else None)
    progress = f"{job.step} of {steps}" if job.step else str(steps or "default")
    if settings is None:
        return "", progress, "default"
    return f"{settings.subject} · {settings.style}", progress, str(settings.rank or "default")


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
    to = "edit" if command == "edit" else "train"
    asked = {"do": command, "id": job.id}
    return button(command.capitalize(), to, asked, f"{command} {job.name}")
