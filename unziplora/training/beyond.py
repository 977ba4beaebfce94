"""The settings that the paper does not have: formulas and sources in docs/beyond.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from unziplora.errors import InvalidInput
from unziplora.training.checks import check_range, check_text

Weighting = Literal["uniform", "debiased", "x0", "style-friendly"]  # training/weightings.py
LONGEST_PROMPT = 2000  # characters


@dataclass(frozen=True, kw_only=True)
class BeyondThePaper:
    """All are off by default, and a run without them is as if they did not exist."""

    weighting: Weighting = "uniform"
    weighting_content: Weighting | None = None  # as `weighting`
    weighting_style: Weighting | None = None
    weight_from: float = 0.0  # share of the run before which the loss is uniform
    timesteps: Literal["random", "stratified"] = "random"
    lora_plus: float = 1.0  # learning rate of B over that of A
    mask_content: Literal["off", "subject", "apart"] = "off"  # training/subject_mask.py
    mask_rest: float = 0.2  # weight of what a mask shuts out of a branch; only with mask_content
    rank_mask: float | None = None  # T-LoRA's exponent a (it has 1): fewer ranks where it is noisy
    rank_mask_least: float = 0.5  # share of content's rank that is always there, as in T-LoRA
    rank_by_group: Mapping[str, int] | None = None  # {"output_blocks.0.1": 32}; others have `rank`
    leak_penalty: float = 0.0  # weight; 0: none (training/leak.py)
    leak_every: int = 4  # steps
    leak_prompt_content: str | None = None  # "an image in oil painting style"
    leak_prompt_style: str | None = None  # "a house"
    average_last: int = 0  # steps whose mean the files hold; 0: the last one's numbers

    @property
    def beyond_the_paper(self) -> dict[str, Any]:
        """What was chosen of these, for those who compare."""
        chosen = {field: getattr(self, field.name) for field in fields(BeyondThePaper)}
        return {field.name: value for field, value in chosen.items() if value != field.default}

    def check_beyond(self, min_snr_gamma: float | None) -> None:
        """Raises InvalidInput. min_snr_gamma: of the same settings."""
        for what, value, (low, high), above in (
            ("share of the run before weights count", self.weight_from, (0, 1), False),
            ("weight of the pixels outside a mask", self.mask_rest, (0, 1), False),
            ("LoRA+ ratio", self.lora_plus, (0, 1000), True),
            ("rank mask's exponent", self.rank_mask, (0, 100), True),
            ("rank mask's least share", self.rank_mask_least, (0, 1), False),
            ("leak penalty's weight", self.leak_penalty, (0, 1e6), False),
            ("number of steps between leak penalties", self.leak_every, (1, 100_000), False),
            ("number of steps to average", self.average_last, (0, 100_000), False),
        ):
            if value is not None:
                check_range(what, value, low, high, above=above)
        for name in ("leak_prompt_content", "leak_prompt_style"):
            if (text := getattr(self, name)) is not None:
                check_text(name.replace("_", " "), text, LONGEST_PROMPT)
        if self.rank_mask is not None and self.rank_by_group:
            raise InvalidInput(
                "A rank mask and ranks by group were both chosen. Choose one of them."
            )
        chosen = {self.weighting, self.weighting_content, self.weighting_style} - {"uniform", None}
        if min_snr_gamma is not None and chosen:
            raise InvalidInput(
                "A min-SNR gamma and a weighting were both chosen. Choose one of them."
            )
        if self.weight_from and min_snr_gamma is None and not chosen:
            raise InvalidInput(
                "weight_from says from when on the loss is weighted, and nothing weighs it. "
                "Choose a weighting, or leave it out."
            )
