"""Two judges that know the world: who is in an image, and how it is drawn.

    python -m mini_world.probes draw  --run-dir DIR     12,000 images with known instances
    python -m mini_world.probes train --run-dir DIR           about 12 minutes
    python -m mini_world.probes report                  how well they tell held-out things apart

The content probe embeds the instance whatever the style, the style probe the style and its variant
whatever the content. They stand for the DINO and CLIP/CSD scores of the paper's Table 2. They are
trained on drawings of training instances in training styles and never on what any method made.
Heads on the same networks name the class, the colour and the style, for the gates.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mini_world.precision import fast
from mini_world.scenes import COLOURS, CONTEXTS, instance
from mini_world.styles import STYLES
from mini_world.world import (
    HELD_OUT_STYLES,
    KINDS,
    TRAINING_STYLES,
    Drawing,
    held_out_instance,
    portrait,
)

FOLDER = Path(__file__).parent / "probes"
INSTANCES, VIEWS = 1500, 8  # of training instances; images of each
VARIANTS = 24  # of each style
COLOUR_NAMES = list(COLOURS)
WIDTHS = (32, 64, 96, 128, 192)
TEMPERATURE = 0.1


@dataclass(frozen=True)
class Vocabulary:
    """What a world's probes can name, and the folder of their weights."""

    folder: Path
    kinds: Sequence[str]
    colours: Sequence[str]
    styles: Sequence[str]


DRAWN = Vocabulary(FOLDER, KINDS, COLOUR_NAMES, TRAINING_STYLES)


class Probe(nn.Module):
    """Images (n, 3, 128, 128) in -1..1 to unit vectors (n, 64); heads name what is known."""

    def __init__(self, heads: dict[str, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *WIDTHS[:-1]), WIDTHS, strict=True):
            layers += [
                nn.Conv2d(before, after, 3, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.trunk = nn.Sequential(*layers)
        # mean and deviation over the image: what is there, and how unevenly
        self.embedding = nn.Linear(2 * WIDTHS[-1], 64)
        self.heads = nn.ModuleDict({name: nn.Linear(64, size) for name, size in heads.items()})

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        flat = self.trunk(images).flatten(2)
        embedded = self.embedding(torch.cat([flat.mean(-1), flat.std(-1)], -1))
        return F.normalize(embedded, dim=-1), {n: h(embedded) for n, h in self.heads.items()}


def new_probes(words: Vocabulary = DRAWN) -> dict[str, Probe]:
    return {
        "content": Probe({"kind": len(words.kinds), "colour": len(words.colours)}),
        "style": Probe({"style": len(words.styles)}),
    }


class Judge:
    """Both probes, loaded. Images are (n, 128, 128, 3) uint8; vectors are unit vectors."""

    name = "the world's own networks"

    def __init__(self, words: Vocabulary = DRAWN) -> None:
        self.words, self.probes = words, new_probes(words)
        for name, probe in self.probes.items():
            path = words.folder / f"{name}.safetensors"
            with safe_open(path, "pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            probe.load_state_dict({k: v.float() if v.is_floating_point() else v
                                   for k, v in state.items()})  # fmt: skip
            probe.eval()

    @torch.no_grad()
    def _run(self, name: str, images: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        parts = [self.probes[name](as_input(images[i : i + 64]))
                 for i in range(0, len(images), 64)]  # fmt: skip
        heads = {h: torch.cat([p[1][h] for p in parts]) for h in parts[0][1]}
        return torch.cat([p[0] for p in parts]), heads

    def content(self, images: np.ndarray) -> Tensor:
        """(n, 64): who is there."""
        return self._run("content", images)[0]

    def style(self, images: np.ndarray) -> Tensor:
        """(n, 64): how it is drawn."""
        return self._run("style", images)[0]

    def kinds(self, images: np.ndarray) -> list[str]:
        return self._named("content", "kind", self.words.kinds, images)

    def colours(self, images: np.ndarray) -> list[str]:
        return self._named("content", "colour", self.words.colours, images)

    def styles(self, images: np.ndarray) -> list[str]:
        return self._named("style", "style", self.words.styles, images)

    def _named(self, probe: str, head: str, names: Sequence[str], images: np.ndarray) -> list[str]:
        return [names[i] for i in self._run(probe, images)[1][head].argmax(-1).tolist()]


def as_input(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def draw(run_dir: Path) -> None:
    """probes.npy, (12000, 128, 128, 3), and probes.json with what each image shows."""
    rng = np.random.default_rng(23)
    pixels = np.zeros((INSTANCES * VIEWS, 128, 128, 3), np.uint8)
    known: list[dict[str, Any]] = []
    for number in range(INSTANCES):
        who = instance(KINDS[number % len(KINDS)], 100_000 + number)
        for _ in range(VIEWS):
            style = str(rng.choice(TRAINING_STYLES))
            variant = int(rng.integers(VARIANTS))
            context = str(rng.choice(sorted(CONTEXTS))) if rng.random() < 0.4 else None
            image = portrait(who, style, variant, int(rng.integers(2**31)), context)
            pixels[len(known)] = image.draw()
            colour = COLOUR_NAMES.index(who.colour) if STYLES[style].keeps_colour else -1
            known.append({
                "instance": number, "kind": number % len(KINDS), "colour": colour,
                "style": TRAINING_STYLES.index(style), "variant": variant,
            })  # fmt: skip
    np.save(run_dir / "probes.npy", pixels)
    (run_dir / "probes.json").write_text(json.dumps(known))


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shifted a little, sometimes blurred or noisy, as a small model's images are."""
    dy, dx = (int(v) for v in torch.randint(-6, 7, (2,), generator=generator))
    images = F.pad(images, (6, 6, 6, 6), mode="replicate")
    images = images[:, :, 6 + dy : 134 + dy, 6 + dx : 134 + dx]
    kind = torch.rand(len(images), generator=generator)[:, None, None, None]
    small = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
    noise = 0.08 * torch.randn(images.shape, generator=generator)
    return torch.where(kind < 0.35, small, images) + noise * (kind % 0.5 < 0.2)


def contrast(embedded: Tensor, same: Tensor, distinct: Tensor) -> Tensor:
    """Supervised contrastive loss (arXiv 2004.11362, eq. 2): vectors of one thing together.

    same: (n, n), which pairs belong together; distinct: which may count at all.
    """
    alike = embedded @ embedded.T / TEMPERATURE
    alike = alike.masked_fill(~distinct, -1e9)
    log_share = alike - alike.logsumexp(-1, keepdim=True)
    pairs = same & distinct
    each = (log_share * pairs).sum(-1) / pairs.sum(-1).clamp(min=1)
    return -each[pairs.any(-1)].mean()


def content_batch(rng: np.random.Generator, facts: dict[str, np.ndarray]) -> np.ndarray:
    """Four images each of 24 instances, half of them of two classes: near strangers.

    facts: of VIEWS images of each instance, one instance after the other."""
    kind_of = facts["kind"][::VIEWS]
    near = np.flatnonzero(np.isin(kind_of, rng.choice(kind_of.max() + 1, 2, replace=False)))
    few, rest = min(12, len(near)), len(kind_of)
    chosen = [*rng.choice(near, few, replace=False), *rng.choice(rest, 24 - few, replace=False)]
    return np.concatenate([who * VIEWS + rng.choice(VIEWS, 4, replace=False) for who in chosen])


def style_batch(rng: np.random.Generator, facts: dict[str, np.ndarray]) -> np.ndarray:
    """Four images each of 24 variants, half of them of four styles."""
    styles = facts["style"].max() + 1
    few = rng.choice(styles, 4, replace=False)
    chosen = []
    for n in range(24):
        style = few[n % 4] if n < 12 else rng.integers(styles)
        there = np.flatnonzero(facts["style"] == style)
        variant = rng.choice(facts["variant"][there])
        there = there[facts["variant"][there] == variant]
        chosen.append(rng.choice(there, 4, replace=len(there) < 4))
    return np.concatenate(chosen)


def train(run_dir: Path, steps: int, names: Sequence[str], words: Vocabulary = DRAWN) -> None:
    """Writes NAME.safetensors (fp16) into the vocabulary's folder. Individuals are harder to tell
    apart than styles: the content probe takes twice the steps."""
    pixels = np.load(run_dir / "probes.npy", mmap_mode="r")
    accuracies = json.loads((run_dir / "probes.json").read_text())
    facts = {key: np.array([t[key] for t in accuracies]) for key in accuracies[0]}
    facts["look"] = facts["style"] * VARIANTS + facts["variant"]
    probes = new_probes(words)
    for name in names:
        probe = probes[name]
        one_probe(name, probe, pixels, facts, 2 * steps if name == "content" else steps)
        words.folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.half().contiguous() if v.is_floating_point() else v
                 for k, v in probe.state_dict().items()}  # fmt: skip
        save_file(state, words.folder / f"{name}.safetensors")


def one_probe(
    name: str, probe: Probe, pixels: np.ndarray, facts: dict[str, np.ndarray], steps: int
) -> None:
    torch.manual_seed(7)
    probe.train()
    rng, generator = np.random.default_rng(29), torch.Generator().manual_seed(29)
    optimizer = torch.optim.AdamW(probe.parameters(), 3e-3, weight_decay=0.01)
    labels = {"content": ("kind", "colour"), "style": ("style",)}[name]
    pick, key = {"content": (content_batch, "instance"), "style": (style_batch, "look")}[name]
    start = time.monotonic()
    for step in range(steps):
        chosen = pick(rng, facts)
        known = torch.from_numpy(facts[key][chosen])
        images = augmented(as_input(pixels[chosen]), generator)
        with fast("cpu"):
            embedded, heads = probe(images)
        own = torch.eye(len(chosen), dtype=torch.bool)
        loss = contrast(embedded.float(), known[:, None] == known, ~own)
        for label in labels:
            truth = torch.from_numpy(facts[label][chosen])
            loss = loss + 0.5 * F.cross_entropy(heads[label].float(), truth, ignore_index=-1)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 50) * (1 - step / steps)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            minutes = (time.monotonic() - start) / 60
            print(
                f"{name}: {minutes:.1f} min, step {step + 1} of {steps}, "
                f"loss {float(loss.detach()):.3f}",
                flush=True,
            )


def report(judge: Judge, blurred: Any = None) -> dict[str, float]:
    """How well the probes tell held-out instances and styles apart.

    Each question shows one image and asks which of twelve others (another style or another
    instance each) has the same thing in it. blurred: what to do to every image first, such as
    encoding and decoding it.
    """
    change = blurred or (lambda images: images)

    def share(embed: Any, questions: Sequence[tuple[Drawing, list[Drawing]]]) -> float:
        right = 0
        for question, answers in questions:
            shown = change(np.stack([p.draw() for p in [question, *answers]]))
            vectors = embed(shown)
            right += int((vectors[1:] @ vectors[0]).argmax()) == 0
        return right / len(questions)

    rng = np.random.default_rng(31)
    every = [*TRAINING_STYLES, *HELD_OUT_STYLES]

    def anyone(kind: str | None = None) -> Any:
        return held_out_instance(kind or str(rng.choice(KINDS)), int(rng.integers(10_000)))

    def view(who: Any, style: str, variant: int | None = None) -> Drawing:
        variant = int(rng.integers(1000)) if variant is None else variant
        return portrait(who, style, variant, int(rng.integers(2**31)))

    def instances(styles: list[str], same_kind: bool) -> list[tuple[Drawing, list[Drawing]]]:
        questions = []
        for _ in range(60):
            who = anyone()
            others = [who, *(anyone(who.kind if same_kind else None) for _ in range(11))]
            questions.append((view(who, str(rng.choice(styles))),
                              [view(o, str(rng.choice(styles))) for o in others]))  # fmt: skip
        return questions

    def looks(styles: list[str], count: int) -> list[tuple[Drawing, list[Drawing]]]:
        questions = []
        for _ in range(60):
            chosen = [str(s) for s in rng.choice(styles, count, replace=False)]
            # the same variant of it: its own colours and widths of strokes
            variant = int(rng.integers(1000))
            answers = [view(anyone(), s) for s in chosen[1:]]
            question, right = (view(anyone(), chosen[0], variant) for _ in range(2))
            questions.append((question, [right, *answers]))
        return questions

    colourful = [s for s in every if STYLES[s].keeps_colour]
    return {
        "instance among 12 of its class, colourful styles": share(
            judge.content, instances(colourful, same_kind=True)
        ),
        "instance among 12 of any class, any style": share(
            judge.content, instances(every, same_kind=False)
        ),
        "training style among 12": share(judge.style, looks(TRAINING_STYLES, 12)),
        "held-out style among 8": share(judge.style, looks(HELD_OUT_STYLES, 8)),
        "any style among 12": share(judge.style, looks(every, 12)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("draw", "train", "report"))
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--only", choices=("content", "style"))
    args = parser.parse_args()
    if args.what == "report":
        for question, share in report(Judge()).items():
            print(f"{share:.2f}  {question}")
    elif args.run_dir is None:
        parser.error("--run-dir is needed")
    elif args.what == "draw":
        draw(args.run_dir)
    else:
        train(args.run_dir, args.steps, [args.only] if args.only else ["content", "style"])


if __name__ == "__main__":
    main()
