"""What the page shows, as HTML: a run's progress, curves and previews, the queue, the pairs.

Everything that a user or a file has said is escaped here, and nowhere else.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

from PIL import Image

from unziplora.jobs import ENDED, Job
from unziplora.service import Pair
from unziplora.training.events import Event, Message, Previewed, StepDone

PREVIEWS = {"base": "the model alone", "content": "content", "style": "style", "both": "both"}
_THUMB = 256  # pixels


def progress(job: Job | None) -> str:
    """The run that goes on, or the last one: bar, time left, curves, previews, messages."""
    if job is None:
        return '<div class="uz-quiet">No run yet. Its progress and previews will be here.</div>'
    events = [event for _, event in job.events()]
    parts = [_headline(job, events), _previews(events), _curves(events), _messages(job, events)]
    return f'<div class="uz-run" data-state="{job.state}">{"".join(parts)}</div>'


def queue(jobs: Sequence[Job]) -> str:
    """Runs that wait or are paused."""
    waiting = [job for job in jobs if job.state in ("waiting", "paused")]
    if not waiting:
        return ""
    rows = "".join(f"<li>{escape(job.name)} <span>{job.state}</span></li>" for job in waiting)
    return f'<div class="uz-queue"><b>Waiting: {len(waiting)}</b><ul>{rows}</ul></div>'


def pairs(found: Sequence[Pair]) -> str:
    """A card for each pair: its pictures and what calls it."""
    if not found:
        return '<div class="uz-quiet">No pair yet. What you train will be here.</div>'
    return f'<div class="uz-cards">{"".join(_card(pair) for pair in found)}</div>'


def message(text: str, *, error: bool = False) -> str:
    """A sentence for the user; a screen reader says it at once."""
    kind = "uz-error" if error else "uz-note"
    return f'<div class="{kind}" role="{"alert" if error else "status"}">{escape(text)}</div>'


def overlap(shares: Mapping[str, float], warning: str | None) -> str:
    """A bar for each attention group: how many of its open columns both files have."""
    if not shares:
        return message("The two share no attention group.")
    rows = "".join(
        f'<tr><td>{escape(group)}</td><td><div class="uz-bar">'
        f'<div style="width:{100 * share:.0f}%"></div></div></td><td>{share:.0%}</td></tr>'
        for group, share in shares.items()
    )
    said = message(warning, error=True) if warning else ""
    return f'{said}<table class="uz-overlap"><caption>Columns open in both</caption>{rows}</table>'


def tags(pair: Pair, content: float, style: float) -> str:
    """What goes into a prompt: the two calls with their trigger words; a weight of 0 leaves one
    out."""
    words, calls = [], []
    if content:
        words.append(f"a {pair.content_trigger}")
        calls.append(f"<lora:{pair.content.stem}:{content:g}>")
    if style:
        words.append(f"in {pair.style_trigger}" if content else f"an image in {pair.style_trigger}")
        calls.append(f"<lora:{pair.style.stem}:{style:g}>")
    return " ".join([*words, *calls])


def duration(seconds: float) -> str:
    """6:10, or 1:06:10."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _headline(job: Job, events: Iterable[Event]) -> str:
    steps = job.steps or 0
    share = 100 * job.step / steps if steps else 0
    said = [f"{job.step} / {steps}" if steps else "preparing"]
    if job.state == "running" and job.time_left is not None:
        said.append(f"{duration(job.time_left)} left")
    last = next((e for e in reversed(list(events)) if isinstance(e, StepDone)), None)
    if last is not None:
        said.append(f"loss {last.loss:.3f}")
    if job.state != "running":
        said.insert(0, job.state)
    if job.state in ENDED and job.files:
        said += [path.name for path in job.files.values()]
    return (
        f'<div class="uz-name">{escape(job.name)}</div>'
        f'<div class="uz-bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{share:.0f}" aria-label="training"><div style="width:{share:.1f}%"></div>'
        f'</div><div class="uz-said">{escape(" · ".join(said))}</div>'
    )


def _previews(events: Sequence[Event]) -> str:
    last = next((e for e in reversed(events) if isinstance(e, Previewed)), None)
    if last is None:
        return ""
    shown = "".join(
        f'<figure><img src="{data_url(last.pictures[name])}" alt="{label}, step {last.step}">'
        f"<figcaption>{label}</figcaption></figure>"
        for name, label in PREVIEWS.items()
        if name in last.pictures and last.pictures[name].is_file()
    )
    return f'<div class="uz-previews">{shown}</div>'


def _curves(events: Sequence[Event]) -> str:
    steps = [event for event in events if isinstance(event, StepDone)]
    if len(steps) < 2:
        return ""
    loss = smoothed([event.loss for event in steps])
    opened = {
        role: [100 * event.open_columns[role] for event in steps]  # type: ignore[index]
        for role in ("content", "style")
        if role in steps[-1].open_columns
    }
    return (
        '<div class="uz-curves">'
        + curve("loss", {"loss": loss})
        + curve("open columns, %", opened, floor=0.0)
        + "</div>"
    )


def smoothed(values: Sequence[float], span: int = 25) -> list[float]:
    """A running mean: the loss of single steps says more of their noise than of learning."""
    out: list[float] = []
    for n, value in enumerate(values):
        weight = max(1 / (n + 1), 1 / span)
        out.append(value if not out else out[-1] + weight * (value - out[-1]))
    return out


def curve(title: str, lines: Mapping[str, Sequence[float]], floor: float | None = None) -> str:
    """A small line chart, as SVG; every line has the same number of points, two or more."""
    values = [value for line in lines.values() for value in line]
    if not values:
        return ""
    low = floor if floor is not None else min(values)
    high = max(*values, low + 1e-9)
    width, height = 220, 60
    paths = []
    for name, line in lines.items():
        stride = max(1, len(line) // 220)
        points = list(line[::stride])
        xy = (
            f"{n * width / max(1, len(points) - 1):.1f},"
            f"{height - (value - low) / (high - low) * (height - 4) - 2:.1f}"
            for n, value in enumerate(points)
        )
        paths.append(f'<polyline class="uz-line uz-{escape(name)}" points="{" ".join(xy)}"/>')
    said = ", ".join(f"{name} {line[-1]:.3g}" for name, line in lines.items())
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}: {escape(said)}">{"".join(paths)}</svg>'
        f"<figcaption>{escape(title)}: {escape(said)}</figcaption></figure>"
    )


def _messages(job: Job, events: Iterable[Event]) -> str:
    said = [escape(event.text) for event in events if isinstance(event, Message)][-4:]
    parts = [f'<div class="uz-note">{text}</div>' for text in said]
    if job.error is not None:
        parts.append(message(job.error, error=True))
    return "".join(parts)


def _card(pair: Pair) -> str:
    pictures = "".join(
        f'<img src="{data_url(path)}" alt="{role} of {escape(pair.name)}">'
        for role, file in (("content", pair.content), ("style", pair.style))
        if (path := file.with_suffix(".png")).is_file()
    )
    calls = f"{pair.content_trigger} · {pair.style_trigger}"
    made = f"{pair.method}, {pair.steps} steps, {pair.model}"
    return (
        f'<div class="uz-card">{pictures}<b>{escape(pair.name)}</b>'
        f"<span>{escape(calls)}</span><span>{escape(made)}</span></div>"
    )


def data_url(path: Path) -> str:
    """A JPEG of at most 256 pixels a side: the page needs no route to files for it."""
    return _data_url(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _data_url(path: Path, changed: int) -> str:
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((_THUMB, _THUMB))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
