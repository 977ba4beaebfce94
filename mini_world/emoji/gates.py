"""What a training of the emoji world must pass before it becomes the shipped miniature.

    python -m mini_world.emoji.gates --run-dir DIR [--questions 60] [--json FILE]

Style through the VAE (questions answered through it, as a share of those answered without), the
class of plain prompts, the style of prompts with one. Before the world's own networks are trained
EfficientNet-lite0 answers, and only the first is measured. Beside them, without a gate: how much
the words of held-out styles change what the UNet predicts, as a share of what known ones change. A
face's eyes are looked at: DIR/vae.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from mini_world.captions import article, in_style
from mini_world.emoji.probes import share_right, style_questions, vocabulary
from mini_world.emoji.styles import HELD_OUT_STYLES, TRAINING_STYLES
from mini_world.emoji.things import CORE_KINDS
from mini_world.emoji.vae import through
from mini_world.emoji.world import CORE_STYLES
from mini_world.encoder import EncoderJudge
from mini_world.miniature import Miniature, sample
from mini_world.model import time_ids
from mini_world.probes import Judge
from mini_world.vae import decode

GATES = {"style through the VAE": 0.88, "class": 0.9, "style": 0.95}
GUIDANCE = 2.5

Draw = Callable[[list[str], int], np.ndarray]  # prompts, seed -> (n, 128, 128, 3) uint8


def style_through(judge: Judge | EncoderJudge, vae: AutoencoderKL, count: int = 60) -> float:
    """Of style questions answered on the world's images, the share answered through the VAE."""
    rng = np.random.default_rng(37)
    questions = style_questions(rng, HELD_OUT_STYLES, count) + style_questions(
        rng, TRAINING_STYLES, count
    )
    whole = share_right(judge.style, questions)
    return share_right(judge.style, questions, lambda images: through(vae, images)) / whole


def named(requested: Sequence[str], found: Sequence[str]) -> float:
    return float(np.mean([a == b for a, b in zip(requested, found, strict=True)]))


def class_share(judge: Judge, draw: Draw, seeds: int = 6) -> float:
    """Of "a cat": is it a cat among the classes that the miniature was taught?"""
    prompts = [article(kind) for kind in CORE_KINDS]
    return float(np.mean([
        named(CORE_KINDS, judge.kinds(draw(prompts, seed), CORE_KINDS)) for seed in range(seeds)
    ]))  # fmt: skip


def style_share(judge: Judge, draw: Draw) -> float:
    """Of "a cat in mosaic tiles style": is it that among all training styles?"""
    shares = []
    for seed, style in enumerate(CORE_STYLES):
        kinds = CORE_KINDS[seed % 2 :: 2]
        images = draw([in_style(article(kind), style) for kind in kinds], seed)
        shares.append(named([style] * len(kinds), judge.styles(images)))
    return float(np.mean(shares))


@torch.no_grad()
def word_effect(
    model: Miniature,
    new: Sequence[str] = HELD_OUT_STYLES,
    known: Sequence[str] = CORE_STYLES,
    seed: int = 0,
) -> float:
    """How much "in STYLE style" changes the predicted velocity for held-out styles, as a share of
    what training styles change: near 0, a held-out style's words mean nothing."""

    def velocity(prompts: list[str]) -> Tensor:
        n = len(prompts)
        noisy = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(seed))
        context, pooled = model.text(*model.text.tokens(prompts))
        times = torch.full((n,), 600)
        output: Tensor = model(noisy.expand(n, -1, -1, -1), times, context, pooled, time_ids(n))
        return output

    thing = article(CORE_KINDS[0])
    plain = velocity([thing])
    change = [
        (velocity([in_style(thing, style) for style in styles]) - plain).pow(2).mean().sqrt()
        for styles in (new, known)
    ]
    return float(change[0] / change[1].clamp(min=1e-9))


def gates(run_dir: Path, questions: int = 60) -> dict[str, float]:
    """What is there of them: those of the UNet only once it and the judges have been trained."""
    words = vocabulary(run_dir / "probes")
    trained = all((words.folder / f"{name}.safetensors").exists() for name in ("content", "style"))
    judge = Judge(words) if trained else EncoderJudge()
    vae = AutoencoderKL.from_pretrained(run_dir / "vae").eval()
    vae.to(memory_format=torch.channels_last)
    found = {"style through the VAE": style_through(judge, vae, questions)}
    state = run_dir / "unet.pt"
    if isinstance(judge, Judge) and state.exists():
        model = Miniature().eval()
        model.load_state_dict(torch.load(state, map_location="cpu", weights_only=True)["average"])

        def draw(prompts: list[str], seed: int) -> np.ndarray:
            return decode(vae, sample(model, prompts, seed, guidance=GUIDANCE))

        found["class"] = class_share(judge, draw)
        found["style"] = style_share(judge, draw)
        found["held-out words"] = word_effect(model)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = gates(args.run_dir, args.questions)
    for name, gate in GATES.items():
        value = found.get(name)
        word = "not trained yet" if value is None else "passed" if value >= gate else "FAILED"
        print(f"{name:24} {'' if value is None else f'{value:.2f}':5} (gate {gate:g})  {word}")
    if "held-out words" in found:
        print(f"held-out words           {found['held-out words']:.2f} of known ones")
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return int(any(found.get(name, 0.0) < gate for name, gate in GATES.items()))


if __name__ == "__main__":
    raise SystemExit(main())
