"""What other nodes put on a MODEL or CLIP: refused where it changes weights, else left out.

A patcher carries three kinds of changes. Those of weights (a LoRA) and of parts of the model would
be trained through in silence, so they are refused by name. The noise schedule is one that a user
chooses for the checkpoint: it is kept. What only changes how images are drawn (FreeU, IPAdapter,
guidance) is left out, and the run says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from unziplora.errors import InvalidInput

SAMPLING = "model_sampling"
ATTENTION = "optimized_attention_override"
# of transformer_options: what is always there, or kept
_HARMLESS = {ATTENTION, "sample_sigmas", "cond_or_uncond", "uuids", "sigmas", "patches",
             "patches_replace", "wrappers", "callbacks"}  # fmt: skip


def clean_model(model: Any, name: str) -> Any:
    """A patcher of the same model without anything of other nodes but its noise schedule and its
    attention. Raises InvalidInput for what changes weights or parts of the model. name: what to
    call the model."""
    _refuse_weights(model, f"The model {name}", "the checkpoint's MODEL")
    parts = sorted(map(str, model.object_patches.keys() - {SAMPLING}))
    if parts:
        raise InvalidInput(
            f"Another node has replaced {parts[0]} of the model {name}, and training would go "
            "through it. Connect the model as it is before that node."
        )
    clean = model.clone()
    kept = _options(model).get(ATTENTION)
    clean.model_options = {"transformer_options": {} if kept is None else {ATTENTION: kept}}
    clean.wrappers, clean.callbacks = {}, {}
    return clean


def clean_clip(clip: Any) -> Any:
    """The same CLIP, once more. Raises InvalidInput for one whose weights are patched."""
    _refuse_weights(clip.patcher, "The CLIP", "the checkpoint's CLIP")
    return clip.clone()


def left_out(model: Any) -> str | None:
    """A sentence that names what is on a model and not trained with; None where there is none."""
    names = sorted(set(_named(model)))
    if not names:
        return None
    return (
        f"Other nodes have put {', '.join(names)} on the model. That changes how images are drawn; "
        "training and its previews use the model without it."
    )


def _named(model: Any) -> Iterator[str]:
    options = _options(model)
    for kind in ("patches", "patches_replace"):
        yield from (str(name) for name, patches in options.get(kind, {}).items() if patches)
    yield from (str(name) for name in options.keys() - _HARMLESS)
    yield from (str(name) for name in model.model_options.keys() - {"transformer_options"})
    for wrappers in model.wrappers.values():
        yield from (f"the wrapper {name}" for name, of_one in wrappers.items() if of_one)


def _options(model: Any) -> Mapping[str, Any]:
    options: Mapping[str, Any] = model.model_options.get("transformer_options", {})
    return options


def _refuse_weights(patcher: Any, what: str, instead: str) -> None:
    weights = {_layer(key) for key in patcher.patches}
    if weights:
        raise InvalidInput(
            f"{what} carries a LoRA or another patch on {len(weights)} of its weights. Connect "
            f"{instead} as it is before that node: training needs clean weights."
        )
    kinds = {
        "weight wrappers": patcher.weight_wrapper_patches,
        "injected modules": patcher.injections,
        "hooks": patcher.hook_patches or patcher.forced_hooks,
        "further models": patcher.additional_models,
    }
    for kind, found in kinds.items():
        if found:
            raise InvalidInput(
                f"{what} carries {kind} of another node, and training would go through them. "
                f"Connect {instead} as it is before that node."
            )


def _layer(key: Any) -> str:
    """A patch's key is a name, or a name with a part of its tensor (model_patcher.py:564)."""
    return str(key if isinstance(key, str) else key[0])
