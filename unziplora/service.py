"""What a page and an API do, in one place: start runs, find them again, list the pairs.

A service belongs to one program (a WebUI, or the app) and knows where its host and its folders are;
page and API are two ways to call it and show the same objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from unziplora import api, atomic
from unziplora.errors import BadInput
from unziplora.jobs import ENDED, Job, Jobs
from unziplora.lora.combine import merge
from unziplora.lora.publish import publish
from unziplora.lora.read import read_metadata
from unziplora.sheet import Draw, sheet, words_of
from unziplora.training.events import LorasSaved
from unziplora.training.host import Host
from unziplora.training.picture import open_picture
from unziplora.training.run import check_destination
from unziplora.training.settings import Settings
from unziplora.training.state import RunFolder


@dataclass(frozen=True)
class Pair:
    """Two files of one run in the output folder, and what their headers say."""

    name: str
    content: Path
    style: Path
    content_trigger: str
    style_trigger: str
    method: str
    steps: str
    model: str

    def as_json(self) -> dict[str, str]:
        return {
            "name": self.name,
            "content": self.content.name,
            "style": self.style.name,
            "content_trigger": self.content_trigger,
            "style_trigger": self.style_trigger,
            "method": self.method,
            "steps": self.steps,
            "model": self.model,
        }


class Service:
    """open_host: the program's model, asked for when a run's turn comes. folder: where pairs and
    runs go, asked for anew each time, because it may be an option. saved: told of every pair, so
    that a WebUI can refresh its list. draw: makes pictures for sheets, where the program can."""

    def __init__(
        self,
        open_host: Callable[[], Host],
        folder: Callable[[], Path],
        saved: Callable[[Mapping[str, Path]], None] = lambda files: None,
        draw: Draw | None = None,
    ) -> None:
        self.open_host, self.folder, self._saved = open_host, folder, saved
        self.draw = draw
        self.jobs = Jobs()
        self.jobs.on_event = self._heard

    def start(
        self, picture: str | Path | bytes, settings: Mapping[str, Any], *, overwrite: bool = False
    ) -> Job:
        """Checks what can be checked at once, and puts the run at the end of the queue.

        Raises BadInput for a picture, words or settings that cannot be trained with, and for a
        name that is taken.
        """
        chosen = _settings(settings)
        opened = open_picture(picture)
        out = self._out()
        check_destination(chosen, out, overwrite=overwrite)

        def begin() -> Any:
            return api.train(
                opened,
                subject=chosen.subject,
                style=chosen.style,
                host=self.open_host(),
                settings=chosen,
                out=out,
                overwrite=overwrite,
            )

        name = chosen.chosen_name
        return self.jobs.submit(name, begin, lambda: self._again(out / name))

    def resume(self, name: str) -> Job:
        """Puts a run that lies in the output folder back into the queue. Raises BadInput."""
        for job in self.jobs.all():
            if job.name == name and job.state not in ENDED:
                self.jobs.send(job.id, "resume")
                return job
        folder = self.run_folder(name)
        folder.read_info()
        if not folder.state.is_file():
            raise BadInput(
                f"The run {name} has no saved state to go on from. Start it anew with overwrite."
            )

        def begin() -> Any:
            return self._again(folder.path)

        return self.jobs.submit(name, begin, begin)

    def _again(self, folder: Path) -> Any:
        return api.resume(folder, host=self.open_host())

    def resumable(self) -> list[str]:
        """Names of runs in the output folder that have a state and are not in the queue."""
        busy = {job.name for job in self.jobs.all() if job.state not in ENDED}
        found = self.folder().glob("*/state.safetensors")
        return sorted(
            path.parent.name
            for path in found
            if path.parent.name not in busy and RunFolder(path.parent).exists()
        )

    def pairs(self) -> list[Pair]:
        """The pairs in the output folder, the newest first."""
        folder, found = self.folder(), []
        for content in folder.glob("*_content.safetensors"):
            name = content.name.removesuffix("_content.safetensors")
            style = folder / f"{name}_style.safetensors"
            if style.is_file() and (pair := _pair(name, content, style)) is not None:
                found.append(pair)
        return sorted(found, key=lambda pair: -pair.content.stat().st_mtime)

    def pair(self, name: str) -> Pair:
        """Raises BadInput where there is none of this name."""
        for pair in self.pairs():
            if pair.name == name:
                return pair
        raise BadInput(f"There is no pair named {name} in the output folder.")

    def delete(self, name: str) -> list[str]:
        """Removes a pair: its two files and what lies beside them under their names; the run's
        folder stays. Gives the removed names back."""
        pair = self.pair(name)
        removed = []
        for file in (pair.content, pair.style):
            for ending in (".safetensors", ".json", ".png", ".preview.png"):
                path = file.with_suffix("").with_name(file.stem + ending)
                if path.is_file():
                    path.unlink()
                    removed.append(path.name)
        return removed

    def merge(self, name: str, parts: Sequence[tuple[Path, float]]) -> Path:
        """NAME.safetensors in the output folder, which adds up the parts. Raises BadInput."""
        atomic.check_name(name)
        path = self._out() / f"{name}.safetensors"
        merge(path, parts)
        self._saved({"merged": path})
        return path

    def publish(self, name: str) -> Path:
        """The folder NAME-to-share in the output folder, with the run's last previews. Raises
        BadInput."""
        pair = self.pair(name)
        pictures: dict[str, Path] = {}
        for what in ("content", "style", "both"):
            made = sorted(self.run_folder(name).previews.glob(f"*_{what}.png"))
            beside = self.folder() / f"{name}_{what}.png"
            if made or beside.is_file():
                pictures[what] = made[-1] if made else beside
        files = {"content": pair.content, "style": pair.style}
        return publish(self.folder() / f"{name}-to-share", files, pictures)

    def sheet(self, content: str, style: str, weight: float = 1.0, seed: int = 0) -> Image.Image:
        """The figure of the content of one pair with the style of another or the same. Raises
        BadInput where there are no such pairs or nothing to draw with."""
        if self.draw is None:
            raise BadInput("This program cannot make sheets. Use `unziplora sheet`.")
        one, other = self.pair(content), self.pair(style)
        copy = self.run_folder(content).picture
        return sheet(
            self.draw,
            one.content,
            other.style,
            words_of(one.content, other.style),
            picture=open_picture(copy).image if copy.is_file() else None,
            weights=(weight,),
            seed=seed,
        )

    def run_folder(self, name: str) -> RunFolder:
        """Raises BadInput for a name that would leave the output folder."""
        if not name or Path(name).name != name or name in (".", ".."):
            raise BadInput("A run's name is the name of its folder, without any path.")
        return RunFolder(self.folder() / name)

    def _out(self) -> Path:
        out = self.folder()
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(
                f"The output folder cannot be made ({error.strerror}). Choose another in the "
                "settings."
            ) from error
        return out

    def _heard(self, event: Any) -> None:
        if isinstance(event, LorasSaved) and not event.snapshot:
            self._saved({str(role): path for role, path in event.files.items()})


def _settings(given: Mapping[str, Any]) -> Settings:
    """Raises BadInput for fields that are no settings or have no sensible value."""
    return Settings.from_json(json.dumps({k: v for k, v in given.items() if v is not None}))


def _pair(name: str, content: Path, style: Path) -> Pair | None:
    heads = [read_metadata(path) for path in (content, style)]
    try:
        said = [json.loads(head["ss_network_args"]) for head in heads]
        if said[0]["pair"] != said[1]["pair"]:
            return None
        return Pair(
            name,
            content,
            style,
            str(said[0]["trigger"]),
            str(said[1]["trigger"]),
            str(said[0]["method"]),
            heads[0].get("ss_steps", ""),
            heads[0].get("ss_sd_model_name", ""),
        )
    except (KeyError, ValueError, TypeError):
        return None
