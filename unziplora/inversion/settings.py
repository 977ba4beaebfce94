"""What is chosen for an inversion, with each default's source."""

from __future__ import annotations

from dataclasses import dataclass

from unziplora.errors import InvalidInput
from unziplora.method.methods import INSPIRATION_TREE
from unziplora.method.prompts import BranchName

METHOD = INSPIRATION_TREE
# Words of one token that prompts hold in the embeddings' places.
WORDS: dict[BranchName, str] = {"content": "sks", "style": "ohwx"}
# What the embeddings begin as (UnZipLoRA, section 4.3: the method's own defaults).
BEGIN: dict[BranchName, str] = {"content": "object", "style": "art"}
PROMPT = "a {content} in {style} style"  # UnZipLoRA, section 4.3
MOST_STEPS = 100_000
DEFAULT_STEPS = 1000  # the authors' main_multiseed.py
DEFAULT_LR = 4e-3  # their 5e-4 times 4 accumulated batches of 2
SEEDS = 4


@dataclass(frozen=True)
class InversionSettings:
    """steps: of the pair that is kept. trial_steps: after which the seeds are compared (the
    authors': 200 of 1000). seeds: how many; seed: the first one. images: of each embedding and
    seed, by which they are compared. save_every: steps. Raises InvalidInput."""

    name: str
    steps: int = DEFAULT_STEPS
    lr: float = DEFAULT_LR
    seed: int = 0
    resolution: int | None = None  # the model's own
    seeds: int = SEEDS
    images: int = 4  # the authors: 40
    image_steps: int = 20
    save_every: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MOST_STEPS:
            raise InvalidInput(
                f"An inversion cannot have {self.steps} steps. Choose 1 to {MOST_STEPS}."
            )
        if not 0 < self.lr <= 1:  # also where it is not a number
            raise InvalidInput(
                f"An inversion cannot have the learning rate {self.lr:g}. Choose one above 0 and "
                "up to 1."
            )
        if self.resolution is not None and not 64 <= self.resolution <= 4096:
            raise InvalidInput(
                f"The resolution cannot be {self.resolution}. Choose 64 to 4096 pixels."
            )

    @property
    def trial_steps(self) -> int:
        """A fifth of the run, as the authors'; all of it where there is one seed."""
        return self.steps if self.seeds == 1 else max(1, self.steps // 5)

    @property
    def all_steps(self) -> int:
        """Of the trials, and of what follows the best one."""
        return self.seeds * self.trial_steps + self.steps - self.trial_steps
