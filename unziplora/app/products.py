"""What is made of finished pairs: merged and renamed files, folders to publish, figures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from unziplora import files as atomic
from unziplora.app.library import Library, removing, short
from unziplora.app.sheet import (
    Draw,
    SheetPrompts,
    WeightGrid,
    four_images,
    sheet,
    sheet_prompts,
    weight_grid,
)
from unziplora.errors import InvalidInput, NotFound, WriteError
from unziplora.images.load import open_image
from unziplora.lora.merge import merge
from unziplora.lora.merge_methods import DEFAULT_MU
from unziplora.lora.metadata import LoraInfo, read_info
from unziplora.lora.pair import Pair, pair_files
from unziplora.lora.publish import publish
from unziplora.lora.rename import copy_renamed
from unziplora.lora.sidecars import Card, write_card
from unziplora.method.prompts import BRANCHES, BranchName
from unziplora.training.pair_writer import check_free
from unziplora.training.run_folder import RunFolder

_ROLE_ENDS = tuple(f"_{role}" for role in BRANCHES)
_MOST_GRIDS = 8  # that are remembered


@dataclass(frozen=True)
class Merged:
    """A merged file. trigger: of its parts, as "sks cat, ink style"."""

    path: Path
    trigger: str


class Products(Library):
    """draw: makes images for figures, where the program can. reserve_model: keeps the model from
    runs while something is drawn. The others are the library's."""

    def __init__(
        self,
        folder: Callable[[], Path],
        publish_to: Callable[[], Path] | None = None,
        saved: Callable[[Mapping[str, Path]], None] = lambda files: None,
        draw: Draw | None = None,
        reserve_model: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        busy: Callable[[], Collection[str]] = frozenset,
        runs_at: Callable[[], Path | None] = lambda: None,
    ) -> None:
        super().__init__(folder, publish_to, saved, busy, runs_at)
        self.draw, self._reserve_model = draw, reserve_model
        self._grids: dict[Any, WeightGrid] = {}  # the latest ones

    def rename(self, name: str, new: str) -> Pair:
        """The pair under another name, with its side files and its run's folder: all of it or,
        where a step fails, nothing. Raises NotFound, InvalidInput where the new name is taken or no
        file's or the run is damaged, and WriteError."""
        pair, new = self.pair(name), atomic.check_name(new.strip())
        if new == name:
            return pair
        folder = self.run_folder(name)
        self._check_renaming(folder, new)
        new_files, old = pair_files(self.folder(), new), self._files_of(name)
        with removing(name), atomic.all_or_none() as undo:
            for role, path in pair.files.items():
                copy_renamed(path, new_files[role])
                undo.callback(atomic.remove, new_files[role])
            if folder.exists():
                undo.callback(_rename_back, folder.path.with_name(new), name)
                folder.rename(new)
            for path in old:
                if path not in pair.files.values():  # a side file
                    target = path.with_name(new + path.name[len(name) :])
                    path.rename(target)
                    undo.callback(_move_back, target, path)
        with removing(name):
            for path in old:
                if path in pair.files.values():
                    path.unlink()
        self.saved({str(role): path for role, path in new_files.items()})
        return self.pair(new)

    def _check_renaming(self, folder: RunFolder, new: str) -> None:
        for run in {folder.name, new} & set(self._busy()):
            raise InvalidInput(f"The run {short(run)} has not ended. Wait for it, or stop it.")
        check_free(self.folder(), new)
        self.check_not_listed(*pair_files(self.folder(), new).values())
        for place in (self.run_path(new), folder.path.with_name(new)):
            if os.path.lexists(place):
                raise InvalidInput(f"There is a run named {new} already. Choose another name.")
        if folder.exists():
            folder.read_info()  # which its renaming needs

    def snapshot(self, name: str, step: int) -> dict[BranchName, Path]:
        """The pair that a run kept at a step. Raises NotFound, and InvalidInput."""
        folder = self.run_folder(name).snapshots
        found = {
            branch: next(
                filter(self.is_own, folder.glob(f"*-{step:06d}_{branch}.safetensors")), None
            )
            for branch in BRANCHES
        }
        kept = {branch: path for branch, path in found.items() if path is not None}
        if len(kept) < len(BRANCHES):
            raise NotFound(
                f"The run {short(name)} kept no LoRAs at step {step}. Turn on Keep the LoRAs of "
                "each preview before a run, or save every N steps."
            )
        return kept

    def save_step(self, name: str, step: int) -> Pair:
        """The pair that a run kept at a step, as NAME-stepN in the output folder, with the previews
        of that step on its cards. A name of its own, since WebUIs keep what they have loaded under
        a name. Raises NotFound, InvalidInput and WriteError."""
        kept = self.snapshot(name, step)
        images = self.preview_steps(name).get(step, {})
        new = atomic.check_name(f"{name}-step{step}")
        check_free(self.out(), new)
        files = pair_files(self.out(), new)
        self.check_not_listed(*files.values())
        with atomic.all_or_none() as undo:
            for branch, path in kept.items():
                copy_renamed(path, files[branch])
                undo.callback(atomic.remove, files[branch])
        for branch in kept:
            info = read_info(files[branch])
            card = Card(
                f"The {branch} after step {step} of the run {name}.", info.trigger or "",
                f"Method {info.method}, {step} steps on {info.model_name}.",
            )  # fmt: skip
            shown = open_image(images[branch]).image if branch in images else None
            write_card(files[branch], card, shown, replace=True)
        self.saved({str(branch): path for branch, path in files.items()})
        return self.pair(new)

    def merge(
        self,
        name: str,
        parts: Sequence[tuple[Path, float]],
        how: str = "add",
        *,
        mu: float = DEFAULT_MU,
    ) -> Path:
        """NAME.safetensors in the output folder, of the parts with their weights. how: of
        MERGE_METHODS, one that needs no model; mu: of the one that projects. Raises
        InvalidInput."""
        path, image = self.merge_target(name, parts)
        merge(path, parts, image, how=how, mu=mu)
        self.saved({"merged": path})
        return path

    def merge_target(
        self, name: str, parts: Sequence[tuple[Path, float]]
    ) -> tuple[Path, Image.Image | None]:
        """Where a merged file goes, and the image of its card: the first part's. Raises
        InvalidInput for what is no file's name, or a name that is taken in another folder."""
        path = self.out() / f"{atomic.check_name(name)}.safetensors"
        self.check_not_listed(path)
        beside = parts[0][0].with_suffix(".png") if parts else path
        return path, open_image(beside).image if self.is_own(beside) else None

    def merged(self) -> list[Merged]:
        """The merged files of the output folder, the newest first."""
        found = []
        for path in sorted(self.folder().glob("*.safetensors"), key=lambda p: p.name.lower()):
            if path.stem.endswith(_ROLE_ENDS) or not self.is_own(path):
                continue
            changed = path.stat().st_mtime_ns
            info = _info_at(path, changed)
            if info.role == "merged":
                found.append((changed, Merged(path, info.trigger or "")))
        return [merged for _, merged in sorted(found, key=lambda one: -one[0])]

    def delete_merged(self, name: str) -> list[str]:
        """Removes a merged file, by its stem, and its card. Raises NotFound and WriteError."""
        found = next((one.path for one in self.merged() if one.path.stem == name), None)
        if found is None:
            raise NotFound(f"There is no merged file {short(name)}. It may be deleted already.")
        removed = []
        for path in (found, found.with_suffix(".json"), found.with_suffix(".png")):
            if self.is_own(path):
                with removing(path.name):
                    path.unlink()
                removed.append(path.name)
        self.saved({})
        return removed

    def publish(self, name: str, *, title: str | None = None, licence: str | None = None) -> Path:
        """The folder NAME in `publish_folder`, and a zip of it beside it, with the run's last
        previews. licence: one of lora/publish.py's LICENCES. Raises NotFound, and InvalidInput
        where the folder exists or there is no such licence."""
        pair = self.pair(name)
        previews = self.run_folder(name).previews
        images: dict[str, Path] = {}
        for what in ("content", "style", "both"):
            drawn = sorted(previews.glob(f"*_{what}.png"))
            beside = self.folder() / f"{name}_{what}.png"
            own = [path for path in (beside, *drawn) if self.is_own(path)]
            if own:
                images[what] = own[-1]
        target = self.publish_folder()
        target.mkdir(parents=True, exist_ok=True)
        files = {"content": pair.content, "style": pair.style}
        return publish(target / name, files, images, title=title, licence=licence)

    def sheet(
        self, content: str, style: str, weights: tuple[float, float] = (1.0, 1.0), seed: int = 0
    ) -> Image.Image:
        """The figure of the content of one pair with the style of another or the same. Raises
        NotFound where there are no such pairs, and InvalidInput where there is nothing to draw
        with, or the model is in use."""
        files = self._both(content, style)
        copy = self.run_folder(content).image
        image = open_image(copy).image if self.is_own(copy) else None
        with self._drawing(files) as (draw, prompts):
            return sheet(draw, *files, prompts, image=image, weights=(weights,), seed=seed)

    def four_images(
        self, content: str, style: str, weights: tuple[float, float] = (1.0, 1.0), seed: int = 0
    ) -> Image.Image:
        """A first look at the content of one pair with the style of another. Raises as `sheet`."""
        files = self._both(content, style)
        with self._drawing(files) as (draw, prompts):
            return four_images(draw, *files, prompts, weights, seed)

    def weight_grid(self, content: str, style: str, seed: int = 0) -> WeightGrid:
        """Both at each of several weights; drawn once as long as the files stay. Raises as
        `sheet`."""
        files = self._both(content, style)
        key = (*((path, path.stat().st_mtime_ns) for path in files), seed)
        if key not in self._grids:
            with self._drawing(files) as (draw, prompts):
                self._grids[key] = weight_grid(draw, *files, prompts, seed=seed)
            while len(self._grids) > _MOST_GRIDS:
                del self._grids[next(iter(self._grids))]
        return self._grids[key]

    def _both(self, content: str, style: str) -> tuple[Path, Path]:
        return self.file(content, "content"), self.file(style, "style")

    @contextlib.contextmanager
    def _drawing(self, files: tuple[Path, Path]) -> Iterator[tuple[Draw, SheetPrompts]]:
        """What draws, and the words of these files, while nothing else uses the model."""
        if self.draw is None:
            raise InvalidInput("This program cannot make sheets. Use `unziplora sheet`.")
        with self._reserve_model():
            yield self.draw, sheet_prompts(*files)


def _rename_back(folder: Path, name: str) -> None:
    """A run that got another name, or was about to."""
    if os.path.lexists(folder):
        with contextlib.suppress(OSError, WriteError, InvalidInput):
            RunFolder(folder).rename(name)


def _move_back(path: Path, earlier: Path) -> None:
    with contextlib.suppress(OSError):
        path.rename(earlier)


@lru_cache(maxsize=2048)
def _info_at(path: Path, changed: int) -> LoraInfo:
    """A header, read again when its file has changed."""
    return read_info(path)
