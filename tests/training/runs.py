"""Short runs on the host of docs/extending.md, and what they wrote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from safetensors import safe_open

import unziplora
from unziplora.images.load import SourceImage
from unziplora.training.run import Run

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # tiny tensors; more threads only wait
RUN = Path(".unziplora") / "pair"  # in the output folder
SETTINGS = {"steps": 6, "name": "pair", "rank": 2, "lr": 1e-3, "resolution": 64}


def begin(image: Path | SourceImage, host: Any, out: Path, **settings: Any) -> Run:
    return unziplora.train(
        image,
        subject="cat",
        style="ink",
        host=host,
        settings={**SETTINGS, **settings},
        out=out,
    )


def hash_of(path: Path) -> str:
    with safe_open(path, framework="pt") as file:
        return str(file.metadata()["sshs_model_hash"])


def hashes(out: Path, name: str = "pair") -> tuple[str, str]:
    return hash_of(out / f"{name}_content.safetensors"), hash_of(out / f"{name}_style.safetensors")
