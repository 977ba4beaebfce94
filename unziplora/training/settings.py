"""Everything a run can be told, validated once at the door, with each default's source."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from unziplora.errors import InvalidInput
from unziplora.method.branches import Init
from unziplora.method.columns import Importance, Reduction
from unziplora.method.methods import METHODS, Method
from unziplora.method.prompts import BranchName, Prompts, content_trigger, style_trigger

PAPER_STEPS = 600  # section 4.1; B-LoRA's own default is in method/methods.py
PAPER_RANK = 64  # section 4.1
PAPER_LR = 5e-5  # of A and B, section 4.1
MOST_STEPS = 100_000
LONGEST_WORDS = 200  # characters; the text encoders' 77 tokens end sooner

Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Settings:
    """One run. None means: taken from the method, the model or the other settings."""

    subject: str  # one word for the class (section 3.2)
    style: str  # two or three words
    token: str = "sks"  # a rare token: with the class, the subject's trigger
    name: str | None = None  # of the pair's files

    method: str = "unziplora"
    steps: int | None = None  # 600 (section 4.1), b-lora 1000
    rank: int | None = None  # 64 (section 4.1); at most a quarter of a small model's width
    alpha: float | None = None  # the rank, so that a file's scale is 1 in every program
    resolution: int | None = None  # pixels; the model's own
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

    memory: Literal["auto", "full", "checkpoint", "low", "lowest"] = "auto"
    save_minutes: float = 5.0
    snapshot_every: int = 0  # steps; 0: never
    preview_every: int = 0  # steps; 0: never
    preview_steps: int = 20
    preview_negative: str = ""
    keep_state: bool = False  # after the run has ended well; 2.2 GB for two rank-64 SDXL LoRAs

    def __post_init__(self) -> None:
        for field, value in self._typed().items():
            object.__setattr__(self, field, value)
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

    def trigger(self, branch: BranchName) -> str:
        """What calls the LoRA in a prompt: "sks cat", "watercolor painting style"."""
        if branch == "content":
            return content_trigger(self.subject, self.token)
        return style_trigger(self.style)

    @property
    def chosen_method(self) -> Method:
        return METHODS[self.method]

    @property
    def total_steps(self) -> int:
        return self.steps if self.steps is not None else self.chosen_method.steps

    @property
    def stage_steps(self) -> int:
        """t: steps from one measuring window to the next."""
        return self.recalibrate_every or max(1, self.total_steps // 3)

    @property
    def chosen_window(self) -> int:
        """W, at most half of t, so that short runs also train with masks."""
        return min(self.window, max(1, self.stage_steps // 2))

    @property
    def chosen_lr(self) -> float:
        return self.lr if self.lr is not None else PAPER_LR

    @property
    def chosen_merger_lr(self) -> float:
        """Scaled for short runs, in which the mergers would otherwise hardly move."""
        if self.merger_lr is not None:
            return self.merger_lr
        return 5e-3 * max(1.0, PAPER_STEPS / self.total_steps)

    @property
    def chosen_name(self) -> str:
        """The files' base name: the user's, or the words'."""
        if self.name is not None:
            return self.name
        return re.sub(r"[^\w]+", "-", f"{self.subject}-{self.style}".lower()).strip("-_")

    def lr_factor(self, step: int) -> float:
        """What the learning rates are multiplied with at a step (from 0)."""
        if step < self.lr_warmup:
            return (step + 1) / self.lr_warmup
        done = (step - self.lr_warmup) / max(1, self.total_steps - self.lr_warmup)
        if self.lr_schedule == "linear":
            return 1 - done
        if self.lr_schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1.0

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Raises InvalidInput for anything that is not the settings of a run."""
        try:
            given = json.loads(text)
        except ValueError as error:
            raise InvalidInput(
                "The run's settings are not readable JSON. Start the run anew."
            ) from error
        if not isinstance(given, dict) or not {"subject", "style"} <= given.keys():
            raise InvalidInput("These are not the settings of a run. Start the run anew.")
        known = {field.name for field in fields(cls)}
        if unknown := sorted(given.keys() - known):
            raise InvalidInput(
                f"The settings name {unknown[0]!r}, which this version does not know. "
                "Use the version that wrote them, or start the run anew."
            )
        return cls(**given)

    def _typed(self) -> dict[str, Any]:
        """Every value in its field's type; JSON's lists become tuples. Raises InvalidInput."""
        hints = get_type_hints(type(self))
        values = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "blocks":
                values["blocks"] = _block_table(value)
            else:
                values[field.name] = _typed(field.name, value, hints[field.name])
        return values

    def _check_words(self) -> None:
        for field in ("subject", "style", "token"):
            _check_text(field, getattr(self, field), LONGEST_WORDS)
            if "<" in getattr(self, field) or ">" in getattr(self, field):
                raise InvalidInput(
                    f"The {field} has a < or >, which WebUIs read as the call of a LoRA. "
                    "Leave them out."
                )
        if self.preview_negative:
            _check_text("preview's negative prompt", self.preview_negative, 10 * LONGEST_WORDS)
        for field in ("prompt_combined", "prompt_content", "prompt_style"):
            if (text := getattr(self, field)) is not None:
                _check_text(field.replace("_", " "), text, 10 * LONGEST_WORDS)
        if self.method not in METHODS:
            raise InvalidInput(
                f"There is no method {self.method!r}. Choose one of {', '.join(METHODS)}."
            )

    def _check_numbers(self) -> None:
        _check_range("steps", self.total_steps, 1, MOST_STEPS)
        _check_range("seed", self.seed, 0, 2**63 - 1)
        if self.rank is not None:
            _check_range("rank", self.rank, 1, 1024)
        if self.resolution is not None:
            _check_range("resolution", self.resolution, 64, 4096)
        if self.alpha is not None:
            _check_range("alpha", self.alpha, 1e-3, 4096)
        _check_range("learning rate", self.chosen_lr, 0, 1e6, above=True)
        _check_range("merger learning rate", self.chosen_merger_lr, 0, 1e6)
        _check_range("learning rate's warm-up", self.lr_warmup, 0, MOST_STEPS)
        _check_range("weight decay", self.weight_decay, 0, 1)
        _check_range("gradient norm", self.max_grad_norm, 0, 1e6, above=True)
        if self.min_snr_gamma is not None:
            _check_range("min-SNR gamma", self.min_snr_gamma, 0, 1000, above=True)
        _check_range("share of columns N", self.columns, 0, 100, above=True)
        _check_range("recalibration interval t", self.stage_steps, 1, MOST_STEPS)
        _check_range("measuring window", self.window, 1, 1000)
        _check_range("orthogonality weight", self.orthogonality, 0, 1e6)
        _check_range("minutes between saves", self.save_minutes, 0, 10_000, above=True)
        for field in ("snapshot_every", "preview_every"):
            _check_range(field.replace("_", " "), getattr(self, field), 0, MOST_STEPS)
        _check_range("preview steps", self.preview_steps, 1, 1000)


def _typed(name: str, value: Any, hint: Any) -> Any:
    options = get_args(hint)
    if get_origin(hint) is Literal:
        if value not in options:
            raise InvalidInput(
                f"The setting {name} cannot be {value!r}. Choose one of "
                f"{', '.join(map(str, options))}."
            )
        return value
    if type(None) in options:
        if value is None:
            return None
        hint = next(option for option in options if option is not type(None))
    # a whole number beyond any float's range is refused like a word
    number = isinstance(value, float) or (type(value) is int and abs(value) < 2**1000)
    if hint is float and number:
        return float(value)
    if hint is int and number and float(value).is_integer():
        return int(value)
    if hint in (str, bool) and isinstance(value, hint):
        return value
    kind = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}[hint]
    raise InvalidInput(f"The setting {name} cannot be {repr(value)[:100]}. It takes {kind}.")


def _block_table(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, Mapping) and all(
        isinstance(groups, (list, tuple))
        and all(isinstance(text, str) and text.isprintable() for text in (branch, *groups))
        for branch, groups in value.items()
    ):
        return {branch: tuple(groups) for branch, groups in value.items()}
    raise InvalidInput(
        "The block table is not readable. It is an object with the rows content and style, each a "
        'list of groups, as {"content": ["output_blocks.0.1"], "style": ["output_blocks.1.1"]}.'
    )


def _check_text(what: str, text: str, longest: int) -> None:
    if not text.strip():
        raise InvalidInput(f"The {what} is empty. Say in a word or two what it is.")
    if len(text) > longest:
        raise InvalidInput(
            f"The {what} has {len(text)} characters, more than {longest}. A word or two are enough."
        )
    if not text.isprintable():
        raise InvalidInput(
            f"The {what} has a character that cannot be printed, such as a line break. "
            "Type it again as one line."
        )


def _check_range(what: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    inside = low < value <= high if above else low <= value <= high
    if not inside:  # also where it is not a number
        least = f"above {low:g}" if above else f"at least {low:g}"
        raise InvalidInput(
            f"The {what} cannot be {value:g}. Choose a value {least} and at most {high:g}."
        )
