"""UNet and text encoders: how they are sampled, updated, and what each attention group hears.

SDXL's conventions: a scaled-linear schedule of 1000 steps, six size numbers, penultimate hidden
states of both encoders, and zeros in place of a dropped caption. The target is velocity, one of
SDXL's two: in a first trial noise prediction stayed noise for far longer.

Part of what an attention group hears is another image's, but for what it is in charge of: the
groups before the last two of what is shown, the last but one of the style while noise is strong,
the last one of the style after that. A group near the loss learns all words first, and the others
then have no reason to: without this two groups learned nearly all words and nine none, and on such
a model nothing can be said about blocks. Silence instead of misleading words made groups repeat
what others say, so that hardly any alone changed anything (docs/quality.md).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from mini_world.model import TextEncoders, new_unet, time_ids
from mini_world.precision import fast

STYLE_EARLY, STYLE_LATE = "output_blocks.4.1", "output_blocks.5.1"
EARLY = 500  # timesteps from here on are those of strong noise


def alphas_cumprod() -> Tensor:
    """SDXL's schedule, (1000,)."""
    return (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)


class Miniature(nn.Module):
    """UNet and text encoders: what is trained here."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = new_unet()
        self.text = TextEncoders()

    def forward(
        self, noisy: Tensor, timesteps: Tensor, context: Tensor, pooled: Tensor, sizes: Tensor
    ) -> Tensor:
        added = {"text_embeds": pooled, "time_ids": sizes}
        return self.unet(noisy, timesteps, context, added_cond_kwargs=added).sample


def heard(group: str, timesteps: Tensor, generator: torch.Generator, share: float) -> Tensor:
    """Which of four captions each sample's group hears, (n,): 2 is added for
    another's content, 1 for another's style."""
    early = timesteps >= EARLY
    in_charge = {STYLE_EARLY: early, STYLE_LATE: ~early}
    content = torch.full_like(early, group not in in_charge)
    style = in_charge.get(group, torch.zeros_like(early))
    misled = torch.rand(2, len(timesteps), generator=generator) < share
    return 2 * (misled[0] & ~content) + 1 * (misled[1] & ~style)


@torch.no_grad()
def sample(
    model: Miniature, prompts: list[str], seed: int, steps: int = 20, guidance: float = 4.0
) -> Tensor:
    """Latents (n, 4, 16, 16) by deterministic DDIM."""
    alphas, n = alphas_cumprod().float(), len(prompts)
    context, pooled = model.text(*model.text.tokens(prompts))
    context = torch.cat([torch.zeros_like(context), context])
    pooled = torch.cat([torch.zeros_like(pooled), pooled])
    x = torch.randn((n, 4, 16, 16), generator=torch.Generator().manual_seed(seed))
    times = torch.linspace(999, 0, steps + 1).long()
    for now, then in itertools.pairwise(times):
        with fast("cpu"):
            both = model(torch.cat([x, x]), now.repeat(2 * n), context, pooled, time_ids(2 * n))
        none, conditional = both.float().chunk(2)
        v = none + guidance * (conditional - none)
        a, b = alphas[now], alphas[then] if then > 0 else torch.tensor(1.0)
        clean, noise = a.sqrt() * x - (1 - a).sqrt() * v, a.sqrt() * v + (1 - a).sqrt() * x
        x = b.sqrt() * clean + (1 - b).sqrt() * noise
    return x


def learn(
    loss: Tensor,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    share: float,
) -> None:
    """One update, and the moving average of the weights after it; step counts from 1."""
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    keep = min(share, (1 + step) / (10 + step))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
