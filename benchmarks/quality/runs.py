"""Training and sampling, each done once per (method, image, seed, settings) and kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.quality import embeddings
from benchmarks.quality.made_files import limited, merged
from benchmarks.quality.targets import SAMPLES, TOKEN, Target, prompts
from mini_world.sampler import Sampler
from unziplora import python_api as api
from unziplora.hosts.standalone.generate import loaded
from unziplora.images.load import open_image
from unziplora.method.methods import INSPIRATION_TREE
from unziplora.method.prompts import BRANCHES, BranchName

SECONDS = "seconds a step"  # of the processor, training and all that belongs to it
_USED: dict[str, tuple[BranchName, ...]] = {"content": ("content",), "style": ("style",)}


@dataclass(frozen=True)
class Job:
    """One training. settings: those of training/settings.py that differ from the defaults."""

    method: str
    target: Target
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        text = json.dumps([self.method, self.seed, dict(sorted(self.settings.items()))])
        return f"{self.target.name}-{self.method}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


class Bench:
    """A sampler and a cache folder; a cache belongs to one model."""

    def __init__(self, sampler: Sampler, cache: Path) -> None:
        self.sampler, self.cache = sampler, cache

    def pair(self, job: Job) -> dict[BranchName, Path]:
        """The two files of a training, trained if they are not there yet."""
        folder = self.cache / "pairs" / job.key
        files = {role: folder / f"pair_{role}.safetensors" for role in BRANCHES}
        if not all(path.exists() for path in files.values()):
            part = folder.with_name(folder.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            image = part / "image.png"
            Image.fromarray(job.target.image()).save(image)
            start = time.process_time()
            if job.method == INSPIRATION_TREE:
                embeddings.train(self.sampler, image, {**job.settings, "seed": job.seed}, part)
            else:
                self._train(job, image, part)
            taken = time.process_time() - start
            (part / "seconds.txt").write_text(str(taken), "utf-8")
            part.rename(folder)
        return files

    def seconds(self, job: Job) -> dict[str, float]:
        """Of the processor for each step, where the training was timed."""
        path = self.cache / "pairs" / job.key / "seconds.txt"
        if not path.exists() or "steps" not in job.settings:
            return {}
        return {SECONDS: float(path.read_text("utf-8")) / job.settings["steps"]}

    def _train(self, job: Job, image: Path, out: Path) -> None:
        masked = job.settings.get("mask_content", "off") != "off"
        mask = Image.fromarray(job.target.mask()) if masked else None
        run = api.train(
            replace(open_image(image), mask=mask),
            subject=job.target.kind,
            style=job.target.style,
            host=self.sampler.host,
            settings={"token": TOKEN, **job.settings, "method": job.method, "seed": job.seed,
                      "name": "pair", "save_minutes": 10_000},
            out=out,
        )  # fmt: skip
        for _ in run:
            pass

    def samples(
        self, job: Job, condition: str, style_of: Job | None = None, how: str = "add"
    ) -> np.ndarray:
        """(16, 128, 128, 3): content, style, both, or cross with the style of another training.
        how: of MERGE_METHODS; other than "add", the two are made one file first."""
        name = f"cross-{style_of.key}" if style_of is not None else condition
        name = name if how == "add" else f"{name}-{how}"
        path = self.cache / "samples" / job.key / f"{name}.npy"
        if not path.exists():
            content, style = self.pair(job)["content"], self.pair(style_of or job)["style"]
            files: dict[BranchName, Path] = {"content": content, "style": style}
            texts = prompts_of(condition, job.target, (style_of or job).target)
            if job.method == INSPIRATION_TREE:
                texts = embeddings.prompts_of(condition, job.target)
                images = embeddings.images(self.sampler, files, texts, _seeds())
            elif how == "add":
                used = _USED.get(condition, BRANCHES)
                images = self._drawn(texts, [files[role] for role in used])
            else:
                with merged(self.sampler.host, files, how) as one:
                    images = self._drawn(texts, [one])
            _keep(path, images)
        return np.load(path)

    def limited_samples(self, job: Job, role: BranchName, groups: Sequence[str]) -> np.ndarray:
        """(16, 128, 128, 3) of one role alone, with its layers in these attention groups only."""
        path = self.cache / "samples" / job.key / f"{role}-in-{'-'.join(groups)}.npy"
        if not path.exists():
            texts = prompts_of(role, job.target, job.target)
            with limited(self.pair(job)[role], groups) as file:
                _keep(path, self._drawn(texts, [file]))
        return np.load(path)

    def _drawn(self, texts: list[str], files: Sequence[Path]) -> np.ndarray:
        with loaded(self.sampler.host, [(path, 1.0) for path in files]):
            return self.sampler.images(texts, _seeds())

    def base_samples(self, condition: str, target: Target, style_target: Target) -> np.ndarray:
        """What the model alone makes of the same prompts and seeds; once for all targets whose
        prompts are the same."""
        texts = prompts_of(condition, target, style_target)
        name = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
        path = self.cache / "samples" / "base" / f"{name}.npy"
        if not path.exists():
            _keep(path, self.sampler.images(texts, _seeds()))
        return np.load(path)


def prompts_of(condition: str, target: Target, style_target: Target) -> list[str]:
    """Those of LoRAs, with their trigger words."""
    style = f"in {style_target.style} style"
    return prompts(condition, target.subject, style, target.others)


def _seeds() -> list[int]:
    return list(range(7000, 7000 + SAMPLES))


def _keep(path: Path, images: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.npy")  # another worker may make the same
    np.save(part, images)
    part.replace(path)
