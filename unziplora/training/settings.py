"""The settings of a run, validated once, with each default's source.

`Settings` is what a user chose; `ResolvedSettings` is what a run on a certain model does: no choice
is left open.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_type_hints

from unziplora.errors import InvalidInput
from unziplora.host import PredictionType
from unziplora.method.branches import Init
from unziplora.method.columns import STAGES, Importance, Reduction
from unziplora.method.methods import INSPIRATION_TREE, METHODS, Method
from unziplora.method.prompts import (
    BranchName,
    PromptName,
    Prompts,
    content_trigger,
    other_class,
    other_style,
    style_trigger,
)
from unziplora.training.beyond import BeyondThePaper
from unziplora.training.checks import block_table, check_range, check_text, rank_table, typed
from unziplora.training.model_traits import ModelTraits

PAPER_STEPS = 600  # section 4.1; B-LoRA's own default is in method/methods.py
PAPER_RANK = 64  # section 4.1
PAPER_LR = 5e-5  # of A and B, section 4.1
MOST_STEPS = 100_000
LONGEST_WORDS = 200  # characters; the text encoders' 77 tokens end sooner
LONGEST_FILE_NAME = 60  # characters of a name that is made of the words

_TABLES = {"blocks": block_table, "rank_by_group": rank_table}
Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Settings(BeyondThePaper):
    """What a user chose for a run. None: taken from the method, the model or other settings."""

    subject: str  # one word for the class (section 3.2)
    style: str  # two or three words
    token: str = "sks"  # a rare token: with the class, the subject's trigger
    name: str | None = None  # of the pair's files

    method: str = "unziplora"
    steps: int | None = None  # 600 (section 4.1), b-lora 1000
    rank: int | None = None  # 64 (section 4.1); at most a quarter of a small model's width
    alpha: float | None = None  # the rank, so that a file's scale is 1 in every program
    resolution: int | None = None  # pixels; the model's own
    prediction_type: Literal["model", "epsilon", "v_prediction"] = "model"  # as the host says
    seed: int = 0

    lr: float | None = None  # of A and B; 5e-5 (section 4.1), or the model's own
    merger_lr: float | None = None  # 5e-3 (authors' train.sh), times 600/steps for shorter runs
    lr_schedule: Schedule = "constant"  # authors' train.sh
    lr_warmup: int = 0  # steps
    weight_decay: float = 0.0  # the paper says Adam; authors' script: AdamW with 1e-4
    max_grad_norm: float = 1.0  # authors' script (diffusers' default)
    min_snr_gamma: float | None = None  # off, as in the paper

    columns: float = 30.0  # N in percent (section 4.1; 25 to 40 works)
    recalibrate_every: int | None = None  # t: 200 of 600 steps (section 4.1), so steps / 3
    window: int = 5  # W: warm-up steps (section 3.3.2); the authors' recalibration takes 1
    importance: Importance = "magnitude"  # Cones, as the paper says
    merger_columns: Literal["open", "overlap"] = "open"  # "overlap": authors' code
    reselect: bool = False  # rank open columns again, too: authors' code, where masks can stall
    orthogonality: float = 0.5  # lambda (section 4.1)
    orthogonality_reduction: Reduction = "mean"  # authors' code; "sum": eq. 5 as printed
    blocks: Mapping[str, tuple[str, ...]] | None = None  # the architecture's own table
    init: Init = "zero"  # of B; "random": authors' code
    fold: Literal["h*m", "h"] = "h*m"  # what goes into the files; "h": authors' code

    style_prompt: Literal["image", "class"] = "image"  # figure 2; "class": authors' script
    prompt_combined: str | None = None
    prompt_content: str | None = None
    prompt_style: str | None = None

    crop: Literal["aspect", "centre"] = "aspect"
    flip: bool = False
    latent: Literal["mean", "sample"] = "mean"

    memory: Literal["auto", "full", "selective", "checkpoint", "low", "lowest"] = "auto"
    save_minutes: float = 5.0
    snapshot_every: int = 0  # steps; 0: never
    preview_every: int = 0  # steps; 0: never
    image_on_cards: bool = False  # the one trained on, where there is no preview to show
    preview_snapshots: bool = False  # also the pair of that step, in fp16
    preview_steps: int = 20
    preview_prompt: str = ""  # of all previews; "": those that are trained
    preview_negative: str = ""
    preview_sampler: str = ""  # by the host's own name; "": the host's default
    preview_guidance: float | None = None  # None: the host's default
    preview_width: int | None = None  # pixels; None: the resolution
    preview_height: int | None = None
    keep_state: bool = False  # after the run has ended well; 2.2 GB for two rank-64 SDXL LoRAs

    def __post_init__(self) -> None:
        for field, value in self._typed().items():
            object.__setattr__(self, field, value)
        if self.name is not None:
            object.__setattr__(self, "name", unicodedata.normalize("NFC", self.name))
        self._check_words()
        self._check_numbers()

    @property
    def prompts(self) -> Prompts:
        """The three prompts: built from the words, each replaced where the user wrote one."""
        built = Prompts.from_words(
            self.subject, self.style, self.token, style_names_class=self.style_prompt == "class"
        )
        return Prompts(
            self.prompt_combined or built.combined,
            self.prompt_content or built.content,
            self.prompt_style or built.style,
        )

    @property
    def leak_prompts(self) -> dict[PromptName, str]:
        """What content and style read where they should change nothing; none without a penalty."""
        if not self.leak_penalty:
            return {}
        style, thing = other_style(self.style), other_class(self.subject)
        return {
            "other style": self.leak_prompt_content or f"an image in {style} style",
            "other class": self.leak_prompt_style or f"a {thing}",
        }

    def trigger(self, branch: BranchName) -> str:
        """What calls the LoRA in a prompt: "sks cat", "watercolor painting style"."""
        if branch == "content":
            return content_trigger(self.subject, self.token)
        return style_trigger(self.style)

    def predicted(self, by_host: PredictionType) -> PredictionType:
        """What the model is taken to predict: as was chosen, else as the host says."""
        return by_host if self.prediction_type == "model" else self.prediction_type

    @property
    def file_name(self) -> str:
        """The base name of the pair's files: the user's, or made of the words."""
        return self.name if self.name is not None else _name_of(f"{self.subject} {self.style}")

    def resolve(self, model: ModelTraits | None = None) -> ResolvedSettings:
        """These settings for a run on a model (None: on SDXL itself), with no choice left open.

        Raises InvalidInput where two of them are only valid apart.
        """
        model = model or ModelTraits()
        method, defaults = METHODS[self.method], model.defaults
        # where a model has its own number, a method that takes longer still does
        usual = round((defaults.steps or PAPER_STEPS) * method.steps / PAPER_STEPS)
        steps = self.steps or usual
        rank = self.rank or defaults.rank or max(1, min(PAPER_RANK, model.narrowest // 4))
        every = self._interval(method, steps)
        scaled = 5e-3 * max(1.0, PAPER_STEPS / steps)  # or mergers would hardly move in short runs
        choices: dict[str, Any] = {
            "name": self.file_name,
            "steps": steps,
            "rank": rank,
            "alpha": self.alpha or float(rank),
            "resolution": self.resolution or defaults.resolution,
            "lr": self.lr or defaults.lr or PAPER_LR,
            "merger_lr": scaled if self.merger_lr is None else self.merger_lr,
            "recalibrate_every": every,
            # at most half of t, so that short runs also train with masks
            "window": max(self._shortest_window, min(self.window, every // 2)),
            "prompt_combined": self.prompts.combined,
            "prompt_content": self.prompts.content,
            "prompt_style": self.prompts.style,
        }
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return ResolvedSettings(**{**own, **choices})

    def _interval(self, method: Method, steps: int) -> int:
        """The recalibration interval t. Raises InvalidInput."""
        least = self._shortest_window + 1
        every = self.recalibrate_every or max(least, steps // STAGES)
        if method.columns and every < least:
            raise InvalidInput(
                f"A recalibration interval t of {every} leaves no step that trains with masks. "
                f"Choose at least {least}."
            )
        return every

    @property
    def _shortest_window(self) -> int:
        """Steps that a measuring window needs. Where B starts at zero, so does every importance:
        the first step only moves B, and the second is the first that measures something."""
        return 2 if self.init == "zero" else 1

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Raises InvalidInput for anything that is not the settings of a run."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(
                "The run's settings are not readable JSON. Start the run again."
            ) from error
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: object) -> Settings:
        """Of JSON's data. Raises InvalidInput as `from_json`."""
        if not isinstance(values, Mapping) or not {"subject", "style"} <= values.keys():
            raise InvalidInput("These are not the settings of a run. Start the run again.")
        known = {field.name for field in fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise InvalidInput(
                f"Unknown setting {unknown[0]!r}. Correct its name, or use the version that wrote "
                "it."
            )
        return cls(**values)

    def _typed(self) -> dict[str, Any]:
        """Every value in its field's type; JSON's lists become tuples. Raises InvalidInput."""
        hints = get_type_hints(type(self))
        values = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _TABLES:
                values[field.name] = _TABLES[field.name](value)
            else:
                values[field.name] = typed(field.name, value, hints[field.name])
        return values

    def _check_words(self) -> None:
        for field in ("subject", "style", "token"):
            check_text(field, getattr(self, field), LONGEST_WORDS)
            if "<" in getattr(self, field) or ">" in getattr(self, field):
                raise InvalidInput(
                    f"The {field} has a < or >, which WebUIs read as the call of a LoRA. "
                    "Leave them out."
                )
        for field in ("preview_prompt", "preview_negative", "preview_sampler"):
            if text := getattr(self, field):
                check_text(field.replace("_", " "), text, 10 * LONGEST_WORDS)
        for field in ("prompt_combined", "prompt_content", "prompt_style"):
            if (text := getattr(self, field)) is not None:
                check_text(field.replace("_", " "), text, 10 * LONGEST_WORDS)
        if self.method == INSPIRATION_TREE:
            raise InvalidInput(
                f"The method {INSPIRATION_TREE} makes embeddings, no LoRAs, and no WebUI has it. "
                f"Use `unziplora train --method {INSPIRATION_TREE}` on the command line."
            )
        if self.method not in METHODS:
            raise InvalidInput(
                f"There is no method {self.method!r}. Choose one of {', '.join(METHODS)}."
            )

    def _check_numbers(self) -> None:
        check_range("seed", self.seed, 0, 2**63 - 1)
        for what, value, (low, high), above in (
            ("steps", self.steps, (1, MOST_STEPS), False),
            ("rank", self.rank, (1, 1024), False),
            ("resolution", self.resolution, (64, 4096), False),
            ("alpha", self.alpha, (1e-3, 4096), False),
            ("learning rate", self.lr, (0, 1e6), True),
            ("merger learning rate", self.merger_lr, (0, 1e6), False),
            ("learning rate's warm-up", self.lr_warmup, (0, MOST_STEPS), False),
            ("weight decay", self.weight_decay, (0, 1), False),
            ("gradient norm", self.max_grad_norm, (0, 1e6), True),
            ("min-SNR gamma", self.min_snr_gamma, (0, 1000), True),
            ("share of columns N", self.columns, (0, 100), True),
            ("recalibration interval t", self.recalibrate_every, (1, MOST_STEPS), False),
            ("measuring window", self.window, (1, 1000), False),
            ("orthogonality weight", self.orthogonality, (0, 1e6), False),
            ("minutes between saves", self.save_minutes, (0, 10_000), True),
            ("snapshot every", self.snapshot_every, (0, MOST_STEPS), False),
            ("preview every", self.preview_every, (0, MOST_STEPS), False),
            ("preview steps", self.preview_steps, (1, 1000), False),
            ("preview guidance", self.preview_guidance, (0, 100), False),
            ("preview width", self.preview_width, (64, 4096), False),
            ("preview height", self.preview_height, (64, 4096), False),
        ):
            if value is not None:
                check_range(what, value, low, high, above=above)
        self.check_beyond(self.min_snr_gamma)


@dataclass(frozen=True, kw_only=True)
class ResolvedSettings(Settings):
    """The settings of a run, with no choice left open; made by `Settings.resolve`.

    What may be None still says something: `blocks` is then the architecture's own table,
    `min_snr_gamma`, `rank_mask` and `rank_by_group` are off, a branch's weighting is `weighting`,
    the leak's prompts are made of the words, and previews have the host's guidance and the
    resolution's size.
    """

    name: str
    steps: int
    rank: int
    alpha: float
    resolution: int
    lr: float
    merger_lr: float
    recalibrate_every: int
    prompt_combined: str
    prompt_content: str
    prompt_style: str

    def rank_of(self, group: str) -> int:
        """Of the layers in an attention group."""
        return (self.rank_by_group or {}).get(group, self.rank)

    def lr_factor(self, step: int) -> float:
        """What the learning rates are multiplied with at a step (from 0)."""
        if step < self.lr_warmup:
            return (step + 1) / self.lr_warmup
        done = (step - self.lr_warmup) / max(1, self.steps - self.lr_warmup)
        if self.lr_schedule == "linear":
            return 1 - done
        if self.lr_schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1.0


def _name_of(words: str) -> str:
    """A file name of words: "fox-ink", and of emoji, what they are called: "fox-face"."""
    spelt = ""
    for character in unicodedata.normalize("NFC", words):
        emoji = unicodedata.category(character) == "So"
        spelt += f" {unicodedata.name(character, '')} " if emoji else character
    name = re.sub(r"[^\w]+", "-", spelt.lower()).strip("-_")
    while len(name) > LONGEST_FILE_NAME or len(name.encode()) > 2 * LONGEST_FILE_NAME:
        name = name[:-1]
    return name.strip("-_") or "pair"
