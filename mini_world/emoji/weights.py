"""What is kept of a training, so that another machine can go on: weights in fp16.

    python -m mini_world.emoji.weights --run-dir DIR      keep the newest VAE and moving average

weights/vae.safetensors and weights/model.safetensors beside this file, replaced, never added to.
A training in an empty run folder starts from them (vae.first_vae, train.first_model). The
optimizer's state is left out: it is twice as large as the weights and warms up in a hundred steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

FOLDER = Path(__file__).parent / "weights"


def read(name: str, folder: Path = FOLDER) -> dict[str, Tensor] | None:
    """The kept state dict of "vae" or "model", None if there is none."""
    path = folder / f"{name}.safetensors"
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def keep(name: str, state: Mapping[str, Tensor], step: int, folder: Path = FOLDER) -> Path:
    """Write a state dict in fp16, with the steps that made it. Raises ValueError where a number
    does not fit fp16."""
    tensors = {key: value.detach().cpu().half().contiguous() if value.is_floating_point()
               else value.cpu() for key, value in state.items()}  # fmt: skip
    bad = [key for key, value in tensors.items() if not torch.isfinite(value.float()).all()]
    if bad:
        raise ValueError(f"Not finite in fp16: {', '.join(bad[:3])}. Go back to an older state.")
    folder.mkdir(parents=True, exist_ok=True)
    part, path = folder / f"{name}.part", folder / f"{name}.safetensors"
    save_file(tensors, part, {"steps": str(step)})
    part.replace(path)
    return path


def keep_run(run_dir: Path, folder: Path = FOLDER) -> list[Path]:
    """Keep what a run folder has: the VAE as trained, the moving average of UNet and encoders."""
    kept = []
    for name, file, part in (("vae", "vae.pt", "vae"), ("model", "unet.pt", "average")):
        if (run_dir / file).exists():
            state: dict[str, Any] = torch.load(
                run_dir / file, map_location="cpu", weights_only=True
            )
            kept.append(keep(name, state[part], state["step"], folder))
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    args = parser.parse_args()
    for path in keep_run(args.run_dir, args.folder):
        print(path, f"{path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
