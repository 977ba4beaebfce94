"""What other extensions left on the model: off for the run, back afterwards.

An option or extension that was used for an image may leave a changed forward behind (Hypertile does
so by design, others when an image fails). A run would be trained through it, in silence.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from types import BuiltinFunctionType
from typing import Any

import torch
from torch import nn

from unziplora.errors import InvalidInput
from unziplora.unet.changes import Changes

_FORWARDS = ("forward", "_forward")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OWN = frozenset({"Lora", "sd_forge_lora"})  # part of the WebUI: what its LoRAs go through


class ForeignHooks:
    """folders: those of the program's extensions, by which the origin of a function is known.
    kind: what the program calls them."""

    def __init__(self, folders: Sequence[Path], kind: str = "extension") -> None:
        self._folders = [PurePath(folder) for folder in folders]
        self._kind = kind

    @contextlib.contextmanager
    def off(self, unet: nn.Module, others: Sequence[nn.Module] = ()) -> Iterator[list[str]]:
        """Takes off what is not the WebUI's: of the UNet everything that was put on an instance, of
        the others (VAE, text encoders, which a WebUI changes itself) what came from an extension.
        Gives sentences that name it.

        Raises InvalidInput for what cannot be taken off: a forward of a whole class.
        """
        self._refuse_replaced_classes(unet)
        found: Counter[str] = Counter()
        with Changes(unet) as changes:
            for root in (unet, *others):
                for module in root.modules():
                    self._take_off_forwards(module, root is unet, changes, found)
                    self._take_off_hooks(module, root is unet, changes, found)
            self._take_off_cat(unet, changes, found)
            yield [
                f"{origin} had changed the model (in {count} places). That is off for this run and "
                "comes back afterwards."
                for origin, count in sorted(found.items())
            ]

    def _take_off_forwards(
        self, module: nn.Module, every: bool, changes: Changes, found: Counter[str]
    ) -> None:
        for name in _FORWARDS:
            function = module.__dict__.get(name)
            if function is not None and (every or self.extension_of(function)):
                found[self._origin(function)] += 1
                changes.remove(module.__dict__, name)

    def _take_off_hooks(
        self, module: nn.Module, every: bool, changes: Changes, found: Counter[str]
    ) -> None:
        """In the dictionary in which torch keeps them, so that handles to them stay valid."""
        for name in _HOOKS:
            hooks = getattr(module, name, None) or {}
            taken = {key: hook for key, hook in hooks.items() if every or self.extension_of(hook)}
            if taken:
                found.update(self._origin(hook) for hook in taken.values())
                changes.then(partial(_put_back, hooks, dict(hooks)))
                for key in taken:
                    del hooks[key]

    def _take_off_cat(self, unet: nn.Module, changes: Changes, found: Counter[str]) -> None:
        """FreeU changes the concatenation of skip connections: in the WebUI's stand-in for torch
        that the UNet's module uses (modules/sd_hijack_unet.py:11 of Automatic1111), or in torch."""
        owners = [getattr(sys.modules.get(type(unet).__module__), "th", None), torch]
        for owner in owners:
            cat = getattr(owner, "__dict__", {}).get("cat")
            if cat is None or isinstance(cat, BuiltinFunctionType):
                continue
            found[self._origin(cat)] += 1
            if owner is torch:
                changes.replace(vars(torch), "cat", torch._C._VariableFunctions.cat)
            else:
                changes.remove(vars(owner), "cat")

    def _refuse_replaced_classes(self, unet: nn.Module) -> None:
        kinds = {type(module) for module in unet.modules()}
        for kind in sorted(kinds, key=lambda kind: kind.__qualname__):
            for name in _FORWARDS:
                extension = self.extension_of(getattr(kind, name, None))
                if extension is not None:
                    raise InvalidInput(
                        f"{self._called(extension)} has replaced {kind.__name__}.{name} for the "
                        "whole program, and training would go through it. Switch it off and "
                        "restart the program."
                    )

    def extension_of(self, function: Any) -> str | None:
        """The folder's name of the extension that a function is from; None for others."""
        path = PurePath(_file_of(function))
        for folder in self._folders:
            if path.is_relative_to(folder) and path != folder:
                name = path.relative_to(folder).parts[0]
                return None if name in _OWN else name
        return None

    def _called(self, extension: str) -> str:
        return f"The {self._kind} {extension}"

    def _origin(self, function: Any) -> str:
        """What to call it: an extension, else a file."""
        extension = self.extension_of(function)
        if extension is not None:
            return self._called(extension)
        return f"A hook of {PurePath(_file_of(function)).name or 'unknown origin'}"


def _put_back(hooks: dict[int, Any], before: Mapping[int, Any]) -> None:
    """In the order in which they were."""
    hooks.clear()
    hooks.update(before)


def _file_of(function: Any) -> str:
    """Where it is written; empty where that is not known."""
    while isinstance(function, partial):
        function = function.func
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None:  # an object that is called
        code = getattr(vars(type(function)).get("__call__"), "__code__", None)
    return str(code.co_filename) if code is not None else ""
