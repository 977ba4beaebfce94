"""Two networks that know a world: who is in an image, and how it is drawn (emoji/probes.py trains
the shipped ones).

The content probe embeds the individual whatever the style, the style probe the style and its
variant whatever the content. They stand for the DINO and CLIP/CSD scores of the paper's Table 2.
They are trained on drawings of training individuals in training styles and never on what any method
made. Heads on the same networks name the class, the colour and the style, for the gates.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mini_world.precision import fast

FOLDER = Path(__file__).parent / "probes"
VIEWS = 8  # images of each training individual
VARIANTS = 24  # of each style
WIDTHS = (32, 64, 96, 128, 192)
TEMPERATURE = 0.1


@dataclass(frozen=True)
class Vocabulary:
    """What a world's probes can name, and the folder of their weights."""

    folder: Path
    kinds: Sequence[str]
    colours: Sequence[str]
    styles: Sequence[str]


class Probe(nn.Module):
    """Images (n, 3, 128, 128) in -1..1 to unit vectors (n, 64); heads name what is known.

    shrink: by how much images are made smaller first, which makes it cheaper by its square.
    """

    def __init__(self, heads: dict[str, int], shrink: int = 1) -> None:
        super().__init__()
        self.shrink = shrink
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
        flat = self.trunk(F.avg_pool2d(images, self.shrink)).flatten(2)
        embedded = self.embedding(torch.cat([flat.mean(-1), flat.std(-1)], -1))
        return F.normalize(embedded, dim=-1), {n: h(embedded) for n, h in self.heads.items()}


def new_probes(words: Vocabulary) -> dict[str, Probe]:
    return {
        # individuals differ in shape and colours, styles in their finest strokes
        "content": Probe({"kind": len(words.kinds), "colour": len(words.colours)}, shrink=2),
        "style": Probe({"style": len(words.styles)}),
    }


class Judge:
    """Both probes, loaded. Images are (n, 128, 128, 3) uint8; vectors are unit vectors."""

    name = "the world's own networks"

    def __init__(self, words: Vocabulary) -> None:
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

    def kinds(self, images: np.ndarray, among: Sequence[str] | None = None) -> list[str]:
        """The class in each image; among: only these, such as what a model knows at all."""
        return self._named("content", "kind", self.words.kinds, images, among)

    def colours(self, images: np.ndarray) -> list[str]:
        return self._named("content", "colour", self.words.colours, images)

    def styles(self, images: np.ndarray) -> list[str]:
        return self._named("style", "style", self.words.styles, images)

    def _named(
        self,
        probe: str,
        head: str,
        names: Sequence[str],
        images: np.ndarray,
        among: Sequence[str] | None = None,
    ) -> list[str]:
        known = [i for i, name in enumerate(names) if among is None or name in among]
        return [names[known[i]] for i in self._run(probe, images)[1][head][:, known].argmax(-1)]


def as_input(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


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


def train(run_dir: Path, steps: int, names: Sequence[str], words: Vocabulary) -> None:
    """Writes NAME.safetensors (fp16) into the vocabulary's folder. Individuals are harder to tell
    apart than styles: the content probe takes twice the steps. A training that was stopped goes on
    from its last save."""
    pixels = np.load(run_dir / "probes.npy", mmap_mode="r")
    known = json.loads((run_dir / "probes.json").read_text("utf-8"))
    if len(known) < len(pixels):
        raise SystemExit(f"Only {len(known)} of {len(pixels)} images are drawn. Run draw again.")
    facts = {key: np.array([k[key] for k in known]) for key in known[0]}
    facts["look"] = facts["style"] * VARIANTS + facts["variant"]
    for name in names:
        torch.manual_seed(7)
        training = ProbeTraining(name, new_probes(words)[name], run_dir / f"probe-{name}.pt")
        training.run(pixels, facts, 2 * steps if name == "content" else steps)
        words.folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.half().contiguous() if v.is_floating_point() else v
                 for k, v in training.probe.state_dict().items()}  # fmt: skip
        save_file(state, words.folder / f"{name}.safetensors")
        training.path.unlink()


class ProbeTraining:
    """A probe with its optimizer, saved now and then."""

    RATE, WARM_STEPS, SAVE_STEPS = 3e-3, 50, 10

    def __init__(self, name: str, probe: Probe, path: Path) -> None:
        self.name, self.path, self.step = name, path, 0
        self.probe = probe.train()
        self.optimizer = torch.optim.AdamW(probe.parameters(), self.RATE, weight_decay=0.01)
        self.labels = {"content": ("kind", "colour"), "style": ("style",)}[name]
        self.pick, self.key = {
            "content": (content_batch, "instance"), "style": (style_batch, "look"),
        }[name]  # fmt: skip
        if path.exists():
            state = torch.load(path, map_location="cpu", weights_only=True)
            probe.load_state_dict(state["probe"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]

    def save(self) -> None:
        part = self.path.with_suffix(".part")
        torch.save({"probe": self.probe.state_dict(), "optimizer": self.optimizer.state_dict(),
                    "step": self.step}, part)  # fmt: skip
        part.replace(self.path)

    def run(self, pixels: np.ndarray, facts: dict[str, np.ndarray], steps: int) -> None:
        """pixels: (n, 128, 128, 3) uint8; facts: what each shows."""
        start, first = time.monotonic(), self.step
        while self.step < steps:
            loss = self._one_step(pixels, facts, self.step / steps)
            if self.step % self.SAVE_STEPS == 0:
                self.save()
                pace = (time.monotonic() - start) / (self.step - first)
                print(f"{self.name}: step {self.step} of {steps}, {pace:.2f} s each, "
                      f"loss {loss:.3f}", flush=True)  # fmt: skip
        self.save()

    def _one_step(self, pixels: np.ndarray, facts: dict[str, np.ndarray], share: float) -> float:
        rng = np.random.default_rng((29, self.step))
        generator = torch.Generator().manual_seed(29 + self.step)
        chosen = self.pick(rng, facts)
        known = torch.from_numpy(facts[self.key][chosen])
        images = augmented(as_input(pixels[chosen]), generator)
        with fast("cpu"):
            embedded, heads = self.probe(images)
        own = torch.eye(len(chosen), dtype=torch.bool)
        loss = contrast(embedded.float(), known[:, None] == known, ~own)
        for label in self.labels:
            truth = torch.from_numpy(facts[label][chosen])
            loss = loss + 0.5 * F.cross_entropy(heads[label].float(), truth, ignore_index=-1)
        for group in self.optimizer.param_groups:
            group["lr"] = self.RATE * min(1, (self.step + 1) / self.WARM_STEPS) * (1 - share)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return float(loss.detach())
