"""What the page shows of a run, as HTML: its progress, images and curves, and the queue.

Everything that a user or a file has said is escaped where it becomes HTML.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

from PIL import Image

from unziplora.app.job_queue import ENDED, Job
from unziplora.training.events import Message, Previewed, StepDone
from unziplora.training.memory_forecast import Forecast
from unziplora.ui.charts import chart

PREVIEWS = {"base": "base model", "content": "content", "style": "style", "both": "both"}
_SIDE = 512  # pixels, of a preview on the page


def headline(job: Job | None) -> str:
    """Name, bar, and how far the run is."""
    if job is None:
        return '<div class="uz-quiet">No run yet. Its progress and previews will be here.</div>'
    share = 100 * job.step / job.steps if job.steps else 0
    going = " data-going" if job.state in ("running", "waiting") else ""
    return (
        f'<div class="uz-run" data-state="{job.state}"{going}>'
        f'<div class="uz-head"><b>{escape(job.name)}</b>'
        f'<span class="uz-state">{job.state}</span></div>'
        f'<div class="uz-bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{share:.0f}" aria-label="training">'
        f'<div style="width:{share:.1f}%"></div></div>'
        f'<div class="uz-numbers">{escape(" · ".join(_numbers(job)))}</div></div>'
    )


def _numbers(job: Job) -> list[str]:
    if not job.steps:
        return ["getting the model ready" if job.state == "running" else "not begun"]
    said = [f"{job.step} of {job.steps} steps"]
    if job.state == "running" and job.time_left is not None:
        said.append(f"{duration(job.time_left)} left")
    done = [event for _, event in job.events() if isinstance(event, StepDone)]
    if done:
        recent = done[-25:]
        said.append(f"loss {sum(event.loss for event in recent) / len(recent):.3f}")
        if done[-1].memory_gb is not None:
            said.append(f"{done[-1].memory_gb:.1f} GB at most")
    if job.state in ENDED and job.files:
        said += [path.name for path in job.files.values()]
    return said


def estimate(of: Forecast, seconds: float | None) -> str:
    """What a run would need: "needs about 9.1 GB, 10.4 GB free: plan checkpoint · about 11 min"."""
    free = "" if of.free is None else f", {of.free:.1f} GB free"
    doubt = "" if of.fits else ", which may not fit"
    time = "" if seconds is None else f" · about {roughly(seconds)}"
    need = f"needs about {of.needs[of.plan.name]:.1f} GB{free}"
    return aside(f"{need}: plan {of.plan.name}{doubt}{time}")


def aside(text: str) -> str:
    """A quiet line."""
    return f'<div class="uz-aside">{escape(text)}</div>'


def images(job: Job | None) -> str:
    """The last previews, or in their places what will be there."""
    if job is None:
        return ""
    previewed = [event for _, event in job.events() if isinstance(event, Previewed)]
    last = previewed[-1] if previewed else None
    shown = []
    for name, label in PREVIEWS.items():
        url = data_url(last.images[name]) if last and name in last.images else None
        inner = (
            f'<img src="{url}" alt="{label}, after step {last.step}">'
            if url and last
            else '<div class="uz-blank"></div>'
        )
        shown.append(f"<figure>{inner}<figcaption>{label}</figcaption></figure>")
    said = f"after step {last.step}" if last else "none yet" if job.state not in ENDED else "none"
    return (
        f'<div class="uz-title">Previews <span>{said}</span></div>'
        f'<div class="uz-previews">{"".join(shown)}</div>'
    )


def curves(job: Job | None) -> str:
    """Loss and open columns over the steps."""
    if job is None or not job.steps:
        return ""
    done = [event for _, event in job.events() if isinstance(event, StepDone)]
    steps = [event.step for event in done]
    loss = smoothed([event.loss for event in done])
    opened = {
        role: [100 * event.open_columns[role] for event in done]  # type: ignore[index]
        for role in ("content", "style")
        if done and role in done[-1].open_columns
    }
    return (
        '<div class="uz-curves">'
        + chart("loss", {"loss": loss}, steps, job.steps, "mean of 25 steps")
        + chart("open columns", opened, steps, job.steps, "", unit=" %", top=100)
        + "</div>"
    )


def notes(job: Job | None) -> str:
    """The run's last sentences, and why it failed."""
    if job is None:
        return ""
    said = [event.text for _, event in job.events() if isinstance(event, Message)][-4:]
    return "".join(map(message, said)) + (message(job.error, error=True) if job.error else "")


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


def _row_button(job: Job, command: str) -> str:
    return button(
        command.capitalize(), "train", {"do": command, "id": job.id}, f"{command} {job.name}"
    )


def button(label: str, tab: str, asked: dict[str, str], spoken: str, *, kind: str = "") -> str:
    """A button inside HTML, which page.js takes to the hidden one of its tab."""
    return (
        f'<button type="button" class="uz-button {kind}" data-to="{tab}" '
        f'data-uz="{escape(json.dumps(asked))}" aria-label="{escape(spoken)}">{label}</button>'
    )


def message(text: str, *, error: bool = False) -> str:
    """A sentence for the user, which a screen reader says at once; nothing for no text."""
    if not text:
        return ""
    kind = "uz-error" if error else "uz-note"
    return f'<div class="{kind}" role="{"alert" if error else "status"}">{escape(text)}</div>'


def smoothed(values: Sequence[float], span: int = 25) -> list[float]:
    """A running mean: the loss of single steps says more of their noise than of learning."""
    out: list[float] = []
    for n, value in enumerate(values):
        weight = max(1 / (n + 1), 1 / span)
        out.append(value if not out else out[-1] + weight * (value - out[-1]))
    return out


def duration(seconds: float) -> str:
    """6:10, or 1:06:10."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def roughly(seconds: float) -> str:
    """40 s, 11 min, or 2.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def data_url(path: Path) -> str | None:
    """A small JPEG, so that the page needs no route to files; None where there is no image."""
    try:
        return _data_url(path, path.stat().st_mtime_ns)
    except (OSError, Image.DecompressionBombError):
        return None


@lru_cache(maxsize=64)
def _data_url(path: Path, changed: int) -> str:
    with Image.open(path, formats=("PNG",)) as image:
        small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
