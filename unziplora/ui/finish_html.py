"""The card of a run that has written its files: what it learned, and what to do with it."""

from __future__ import annotations

from html import escape
from pathlib import Path

from unziplora.app.job import Job
from unziplora.training.events import Previewed
from unziplora.ui.html import button, image, tab_button

_ROLES = ("content", "style", "both")


def finish_card(job: Job, trained_on: Path, in_webui: bool) -> str:
    """The image, and content, style and both with a button each. in_webui: the buttons put the
    prompt into txt2img; else they open it on Results."""
    previewed = [event.images for _, event in job.events() if isinstance(event, Previewed)]
    previews = previewed[-1] if previewed else {}
    tab = None if in_webui else "Results"
    figures = _figure(image(trained_on, "training image"), "training image", "")
    for role in _ROLES:
        use = button(
            f"Use {role}", "use", {"use": role, "name": job.name},
            f"use {role} of {job.name}", open_tab=tab,
        )  # fmt: skip
        figures += _figure(image(previews.get(role), role), role, use)
    if job.state == "completed":
        title = f"Both LoRAs are ready, after {job.step} steps"
    else:
        why = "Interrupted" if job.interrupted else "Stopped"
        title = f"{why}: both LoRAs saved at step {job.step}"
    files = " · ".join(path.name for path in job.files.values())
    sheet = button(
        "Draw sheet", "draw", {"do": "sheet", "name": job.name}, f"draw a sheet of {job.name}",
        open_tab="Results",
    )  # fmt: skip
    return (
        f'<section class="uz-finish"><div class="uz-title">{title} <span>{escape(files)}</span>'
        f'</div><div class="uz-previews uz-four">{figures}</div>'
        f'<div class="uz-buttons">{sheet}{tab_button("Open results", "Results")}</div></section>'
    )


def _figure(inner: str, caption: str, below: str) -> str:
    return f"<figure>{inner}<figcaption>{caption}</figcaption>{below}</figure>"
