"""What is changed on a borrowed model: noted before it is done, so that all of it can be undone.

A model that a program lends must be afterwards what it was before, whatever failed in between. So
each change is noted first; at the end each is undone on its own, and one that fails keeps none of
the others from being undone. What could not be undone stays noted, and is tried again before the
model is used again (`restore`).
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch import nn

from unziplora.errors import ModelDamaged

_log = logging.getLogger(__name__)
_ABSENT: Any = object()
_RECORD = "_unziplora_changes"  # on the model itself, so that nothing else keeps it alive

Forward = Callable[..., Any]


def forward_of(module: nn.Module) -> Forward:
    """A module's own forward. That of its class is looked up at each call: A1111 exchanges it, for
    the time of a casting by hand (modules/devices.py:178) and when its page is reloaded."""
    own: Forward | None = module.__dict__.get("forward")
    return own or (lambda *args, **kwargs: type(module).forward(module, *args, **kwargs))


class Changes:
    """Changes of one model that end together; a context manager that undoes them.

    Two that change the same thing may end in any order: it is what it was once both have ended.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._steps: list[Callable[[], None]] = []
        self._record = _record(model)
        self._record.open.append(self)

    def then(self, step: Callable[[], None]) -> None:
        """Notes how something is put back, before it is changed. The step may be run twice, and
        also where the change was never made."""
        self._steps.append(step)

    def replace(self, store: MutableMapping[str, Any], key: str, value: Any) -> None:
        """`store[key] = value` until the changes end; a key that was not there is removed then."""
        slots, place = self._record.slots, (id(store), key)
        slot = slots.get(place) or _Slot(store, key, store.get(key, _ABSENT))
        entry = _Entry(value)
        self.then(lambda: slot.drop(entry))
        slot.entries.append(entry)
        slots[place] = slot
        store[key] = value

    def remove(self, store: MutableMapping[str, Any], key: str) -> None:
        """Takes `store[key]` away until the changes end."""
        self.replace(store, key, None)
        self._record.slots[id(store), key].entries[-1].value = _ABSENT
        del store[key]

    def replace_forward(self, module: nn.Module, forward: Forward) -> None:
        """On the instance; what a host has put there comes back."""
        self.replace(module.__dict__, "forward", forward)

    def end(self) -> None:
        """Undoes every change, the latest first. Raises the first error where one could not be
        undone, after all others were; safe to call twice."""
        errors = self._attempt()
        if self._steps:  # what was undone since may have freed the memory that was missing
            free_memory()
            self._attempt()
        if not self._steps:
            self._record.close(self)
            if not self._record.needed:
                self._model.__dict__.pop(_RECORD, None)
        for error in errors:
            if self._steps or not isinstance(error, Exception):
                raise error
            _log.warning("Restored the model at the second attempt, after: %r", error)

    def _attempt(self) -> list[BaseException]:
        errors: list[BaseException] = []
        for place in reversed(range(len(self._steps))):
            try:
                self._steps[place]()
                del self._steps[place]
            except BaseException as error:  # raised by `end`, when all others have been tried
                errors.append(error)
        return errors

    def __enter__(self) -> Changes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()


@dataclass(eq=False)
class _Entry:
    value: Any


@dataclass(eq=False)
class _Slot:
    """One place that is changed: what it held at first, and what holds it now, in order."""

    store: MutableMapping[str, Any]
    key: str
    original: Any
    entries: list[_Entry] = field(default_factory=list)

    def drop(self, entry: _Entry) -> None:
        """Leaves the place to the latest of the other entries, or as it was at first."""
        if entry in self.entries:
            self.entries.remove(entry)
        value = self.entries[-1].value if self.entries else self.original
        if value is _ABSENT:
            self.store.pop(self.key, None)
        else:
            self.store[self.key] = value


@dataclass(eq=False)
class _Record:
    """Of one model: what has not been undone, the places that are changed, and whether it is
    borrowed."""

    open: list[Changes] = field(default_factory=list)
    slots: dict[tuple[int, str], _Slot] = field(default_factory=dict)
    borrowed: bool = False

    @property
    def needed(self) -> bool:
        return self.borrowed or bool(self.open)

    def close(self, changes: Changes) -> None:
        if changes in self.open:
            self.open.remove(changes)
        self.slots = {place: slot for place, slot in self.slots.items() if slot.entries}


def _record(model: nn.Module) -> _Record:
    record: _Record = model.__dict__.setdefault(_RECORD, _Record())
    return record


@contextmanager
def borrowed(unet: nn.Module) -> Iterator[None]:
    """The outermost of all that changes a model: at its end nothing is left that was changed.

    Raises ModelDamaged where something cannot be undone, and where that was so at the end of an
    earlier run and still is.
    """
    record = _record(unet)
    if record.borrowed:  # the end of an earlier loan was not reached
        restore(unet)
        record = _record(unet)
    record.borrowed = True
    try:
        yield
    finally:
        restore(unet)


def restore(unet: nn.Module) -> None:
    """Undoes whatever is still changed on a model that nobody borrows any more.

    Raises ModelDamaged where that is not possible. The UNet then refuses to run, in any program,
    until a later attempt succeeds.
    """
    record = _record(unet)
    first: BaseException | None = None
    for changes in reversed(list(record.open)):
        try:
            changes.end()
        except BaseException as error:
            first = first or error
    if not record.open:
        record.borrowed = False
        unet.__dict__.pop(_RECORD, None)
        if first is not None:  # all is undone; it was not about the model
            raise first
        return
    refusal = ModelDamaged(
        f"The model in memory could not be restored after a run ({first!r:.200}). "
        "Load the checkpoint again, or restart the program, before you draw with it."
    )

    def refuse(*_: Any, **__: Any) -> Any:
        raise refusal

    Changes(unet).replace_forward(unet, refuse)
    raise refusal from first


def is_changed(unet: nn.Module) -> bool:
    """Whether a model is borrowed, or something of it is still changed."""
    return _RECORD in unet.__dict__


def free_memory() -> None:
    """Gives back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
