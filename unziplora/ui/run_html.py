"""What the page shows of a run, as HTML: its progress, images and curves."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from unziplora.app.job import ENDED, Job
from unziplora.training.events import Drawing, Message, Previewed, StepDone
from unziplora.ui.charts import chart
from unziplora.ui.html import aside, duration, image, message, progress_bar

PREVIEWS = {"base": "base model", "content": "content", "style": "style", "both": "both"}
SMOOTHED_STEPS = 25  # of the loss


def headline(job: Job | None) -> str:
    """Name, bar, and how far the run is."""
    if job is None:
        return '<div class="uz-quiet">No run yet. Its progress and previews will be here.</div>'
    share = 100 * job.step / job.steps if job.steps else 0
    active = " data-active" if job.state in ("running", "waiting") else ""
    return (
        f'<div class="uz-run" data-state="{job.state}"{active}>'
        f'<div class="uz-head"><b>{escape(job.name)}</b>'
        f'<span class="uz-state">{job.state}</span></div>'
        f"{progress_bar(share, 'training')}"
        f'<div class="uz-numbers">{escape(" · ".join(_numbers(job)))}</div></div>'
    )


def _numbers(job: Job) -> list[str]:
    if not job.steps:
        return ["getting the model ready" if job.state == "running" else "not started"]
    parts = [f"{job.step} of {job.steps} steps"]
    if job.state == "running" and (drawing := _drawing(job)) is not None:
        parts.append(f"drawing previews, {drawing.number} of {drawing.count}")
    elif job.state == "running" and job.time_left is not None:
        parts.append(f"{duration(job.time_left)} left")
    done = [event for _, event in job.events() if isinstance(event, StepDone)]
    if done:
        recent = done[-SMOOTHED_STEPS:]
        parts.append(f"loss {sum(event.loss for event in recent) / len(recent):.3f}")
        if done[-1].memory_gb is not None:
            parts.append(f"peak memory {done[-1].memory_gb:.1f} GB")
    return parts


def _drawing(job: Job) -> Drawing | None:
    """The preview that is being drawn, if the run is at that."""
    last = next((event for _, event in job.events(job.event_count - 1)), None)
    return last if isinstance(last, Drawing) else None


def images(job: Job | None, trained_on: Path | None) -> str:
    """The image trained on and the last previews, or in their places what will be there."""
    if job is None:
        return ""
    previewed = [event for _, event in job.events() if isinstance(event, Previewed)]
    last = previewed[-1] if previewed else None
    shown = [_figure(image(trained_on, "training image"), "training image")]
    for name, label in PREVIEWS.items():
        path = last.images.get(name) if last else None
        spoken = f"{label}, after step {last.step}" if last else label
        shown.append(_figure(image(path, spoken), label))
    note = f"after step {last.step}" if last else "none yet" if job.state not in ENDED else "none"
    return (
        f'<div class="uz-title">Previews <span>{note}</span></div>'
        f'<div class="uz-previews">{"".join(shown)}</div>'
    )


def _figure(inner: str, caption: str) -> str:
    return f"<figure>{inner}<figcaption>{escape(caption)}</figcaption></figure>"


def curves(job: Job | None) -> str:
    """Loss and trained columns over the steps."""
    if job is None or not job.steps:
        return ""
    done = [event for _, event in job.events() if isinstance(event, StepDone)]
    steps = [event.step for event in done]
    loss = smoothed([event.loss for event in done])
    trained = {
        role: [100 * event.open_columns[role] for event in done]  # type: ignore[index]
        for role in ("content", "style")
        if done and role in done[-1].open_columns
    }
    return (
        '<div class="uz-curves">'
        + chart("loss", {"loss": loss}, steps, job.steps, f"mean of {SMOOTHED_STEPS} steps")
        + chart("trained columns (%)", trained, steps, job.steps, "", top=100)
        + "</div>"
        + aside(
            "Trained columns: the share of each LoRA that may change. Fewer keep content and style "
            "apart."
        )
    )


def notes(job: Job | None) -> str:
    """The run's last messages, and why it failed."""
    if job is None:
        return ""
    texts = [event.text for _, event in job.events() if isinstance(event, Message)][-4:]
    failure = message(job.error, error=True) if job.error else ""
    return "".join(map(message, texts)) + failure


def smoothed(values: Sequence[float], span: int = SMOOTHED_STEPS) -> list[float]:
    """A running mean: the loss of single steps says more of their noise than of learning."""
    out: list[float] = []
    for n, value in enumerate(values):
        weight = max(1 / (n + 1), 1 / span)
        out.append(value if not out else out[-1] + weight * (value - out[-1]))
    return out
