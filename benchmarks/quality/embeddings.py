"""Inspiration Tree in the benchmark: two embeddings where the other methods have two LoRAs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.targets import Target, prompts
from mini_world.captions import article
from mini_world.sampler import Sampler
from unziplora.images.load import open_image
from unziplora.inversion.embedding_file import read_embedding
from unziplora.inversion.run import InversionRun
from unziplora.inversion.settings import WORDS, InversionSettings
from unziplora.method.prompts import BRANCHES, BranchName


def train(sampler: Sampler, image: Path, settings: Mapping[str, Any], out: Path) -> None:
    """pair_content.safetensors and pair_style.safetensors in `out`."""
    run = InversionRun(open_image(image), InversionSettings("pair", **settings), out)
    for _ in run.on(sampler.host):
        pass


def prompts_of(condition: str, target: Target) -> list[str]:
    """As those of LoRAs (runs.py), with the learned words for the class and the style."""
    style = f"in {WORDS['style']} style"
    return prompts(condition, article(WORDS["content"]), style, target.others)


def images(
    sampler: Sampler, files: Mapping[BranchName, Path], texts: list[str], seeds: list[int]
) -> np.ndarray:
    """(n, side, side, 3) of the prompts `texts`, the embeddings in their words' places."""
    vectors = {}
    for role in BRANCHES:
        (first, second), _ = read_embedding(files[role])
        vectors[WORDS[role]] = (first[0], second[0])
    with (
        sampler.host.borrow(),
        sampler.host.learnable_encoders() as encoders,
        encoders.drawn_with(sorted(set(texts)), vectors),
    ):
        return sampler.images(texts, seeds)
