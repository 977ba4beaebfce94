"""What Automatic1111 and its descendants share: queue, progress, images, and what names mean.

File and line numbers in comments are those of Automatic1111 1.10.1. Nothing of a WebUI is imported
before a method needs it, so that the modules here load anywhere.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from types import ModuleType
from typing import Any

import torch
from PIL import Image
from torch import nn

from unziplora.checkpoints.hints import defaults_in, family_in
from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.host import Defaults, ModelIdentity, PredictionType
from unziplora.hosts.webui import images_first, txt2img
from unziplora.hosts.webui.foreign_hooks import ForeignHooks
from unziplora.hosts.webui.options import extension_folders, option
from unziplora.hosts.webui.txt2img import webui
from unziplora.lora.tensor_file import read_metadata
from unziplora.training.device import bytes_on
from unziplora.unet.changes import borrowed
from unziplora.unet.patches import in_eval_mode

OTHER_VAE = "Choose another VAE in the WebUI's settings, such as the SDXL VAE fixed for fp16."
_INPAINTING_CHANNELS = 9  # latents, the masked image's latents, and the mask
_LATENT_CHANNELS = 4


class WebUIHost:
    """The loaded checkpoint, borrowed under the WebUI's own queue. Made again for every run.

    What differs from one WebUI to the next is in a subclass.
    """

    prediction_type: PredictionType

    @classmethod
    def chosen_model(cls) -> Any:
        """`shared.sd_model` of the checkpoint that is chosen, which this loads where that has not
        been done. Waits for the WebUI's queue. Raises InvalidInput where none is chosen, or it
        cannot be loaded."""
        with webui("call_queue").queue_lock:
            return cls._load_chosen()

    @classmethod
    def _load_chosen(cls) -> Any:
        """As every generation begins: an image with a refiner, or with a checkpoint of its own,
        leaves that one loaded (modules/processing.py:826, modules/sd_samplers_common.py:195). The
        WebUI's queue is held."""
        models, chosen = webui("sd_models"), option("sd_model_checkpoint", None)
        loaded = webui("shared").sd_model  # the first time, this loads it
        if loaded is None and not models.model_data.was_loaded_at_least_once:
            raise no_model(chosen)  # the WebUI keeps what went wrong to its console
        try:
            models.reload_model_weights()
        except Exception as error:  # whatever a damaged or unknown file raises
            raise no_model(chosen, error) from error
        return webui("shared").sd_model

    @classmethod
    def loaded_model(cls) -> Any | None:
        """The same, where it is loaded already, without waiting for anything; else None."""
        return webui("sd_models").model_data.sd_model  # shared.sd_model would load it

    def __init__(self, model: Any) -> None:
        """model: the WebUI's `shared.sd_model`, loaded."""
        self._model = model
        self._info = model.sd_checkpoint_info  # the WebUI may load another one into the same object
        self._fp8 = _stored_in_fp8()
        self._loan = contextlib.ExitStack()
        self.notes: list[str] = []  # for the run's log, about the borrowed model
        if not getattr(model, "is_sdxl", False):
            raise InvalidInput(
                f"{self._title()} is not an SDXL checkpoint. Choose one of SDXL's family."
            )
        channels = self._first_convolution().in_channels
        if channels == _INPAINTING_CHANNELS:
            raise InvalidInput(
                f"{self._title()} is an inpainting model. Choose the model it was made from."
            )
        if channels != _LATENT_CHANNELS:  # Mugen has 32, and says that it is SDXL
            raise InvalidInput(
                f"{self._title()} has latents of {channels} channels, and SDXL has 4. Choose an "
                "SDXL checkpoint."
            )
        if not self._has_both_text_encoders():
            raise InvalidInput(
                f"{self._title()} is a refiner: it has one of SDXL's two text encoders. Choose an "
                "SDXL base checkpoint."
            )

    def _has_both_text_encoders(self) -> bool:
        """SDXL's refiner says that it is SDXL, and has one."""
        raise NotImplementedError

    @property
    def unet(self) -> nn.Module:
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        return torch.device(webui("devices").device)

    @property
    def model(self) -> ModelIdentity:
        return ModelIdentity(self._title(), self._info.sha256, family_in(self._title()))

    @property
    def defaults(self) -> Defaults:
        width = int(self._first_convolution().out_channels)
        return defaults_in(self._header(), width)

    def _header(self) -> Mapping[str, str]:
        """Of the checkpoint's file, as it is: the WebUI's copy has objects in place of JSON
        (modules/sd_models.py:304), and reForge drops it when it loads a model (its :638)."""
        return read_metadata(Path(self._info.filename))

    @contextlib.contextmanager
    def borrow(self) -> Iterator[None]:
        """Waits for the WebUI's queue, lends the UNet clean and frozen, and puts everything back in
        every outcome.

        Raises UnZipLoRAError where another checkpoint was loaded while this waited.
        """
        webui("call_queue").queue_lock.acquire()
        self._loan.enter_context(self._borrowed())
        try:
            yield
        finally:
            self._loan.close()

    def wanted(self) -> bool:
        """Whether an image waits that may go first; not where another checkpoint is chosen, which
        it would load."""
        return images_first.wanted() and self._is_chosen()

    def give_way(self, ended: Callable[[], bool]) -> bool:
        """`SharedHost.give_way`: to the images that wait for the WebUI's queue."""
        self._loan.close()
        if not images_first.take_turn(ended):
            return False
        self._loan.enter_context(self._borrowed())
        return True

    def _is_chosen(self) -> bool:
        """Whether the next image will be made with this model."""
        chosen = webui("sd_models").select_checkpoint()
        return bool(chosen.filename == self._info.filename)

    def _lost(self) -> UnZipLoRAError:
        """What to say where the model is not there any more."""
        if self._is_chosen():  # loaded again, and not into the object that this run trains on
            return UnZipLoRAError(
                "An image with another checkpoint was drawn while this run waited for its turn, "
                f"and {self._title()} had to be loaded again. Resume the run or start it again."
            )
        return UnZipLoRAError(
            "Another checkpoint was loaded while this run waited for its turn. "
            f"Choose {self._title()} again, and resume the run or start it again."
        )

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[None]:
        """Releases the WebUI's queue, which is held, at the end."""
        shared, progress = webui("shared"), webui("progress")
        with contextlib.ExitStack() as held:
            held.callback(images_first.release)
            if self._is_chosen():  # an image that was drawn meanwhile may have left another one
                self._load_chosen()
            loaded: str = self._model.sd_checkpoint_info.filename
            if shared.sd_model is not self._model or loaded != self._info.filename:
                raise self._lost()
            if _stored_in_fp8() != self._fp8:
                raise UnZipLoRAError(
                    f'{self._title()} was loaded again with another "FP8 weight" while this run '
                    "waited for its turn. Set it back in the WebUI's settings, and resume the run "
                    "or start it again."
                )
            task = progress.create_task_id("unziplora")
            shared.state.begin(job=txt2img.JOB)
            progress.start_task(task)
            hooks = ForeignHooks(extension_folders())
            try:
                with (
                    torch.inference_mode(False),
                    torch.enable_grad(),
                    _kept_loaded(self._model),
                    _no_hypernetworks(),
                    borrowed(self.unet),
                    hooks.off(self.unet, self._encoders()) as self.notes,
                    in_eval_mode(self.unet),
                    self._trainable(),
                ):
                    yield
            finally:
                progress.finish_task(task)
                shared.state.end()

    @property
    def freed(self) -> int:
        """Bytes of the device that text encoders and VAE hold now, which are moved off it for a
        run."""
        if self.device.type == "cpu":
            return 0
        return bytes_on(self.device, (p for part in self._encoders() for p in part.parameters()))

    def _encoders(self) -> list[nn.Module]:
        """The VAE and the text encoders."""
        raise NotImplementedError

    def _trainable(self) -> contextlib.AbstractContextManager[None]:
        """Clean weights, in place on the device, frozen and safe to differentiate."""
        raise NotImplementedError

    def _drawing(self, job: Any) -> contextlib.AbstractContextManager[None]:
        """All parts of the model where the WebUI's txt2img expects them, for one `job` that keeps
        to this model: one that was chosen meanwhile is to be loaded after the run, but its name is
        in the options already, and every generation loads what they name."""
        raise NotImplementedError

    def _refuse_embeddings(self, prompts: Sequence[str], known: Sequence[str]) -> None:
        """The WebUI would put an embedding in its name's place without a word."""
        names = {name.lower() for name in known}
        for word in dict.fromkeys(re.split(r"[\s,.:()\[\]]+", " ".join(prompts))):
            if word.lower() in names:
                raise InvalidInput(
                    f'"{word}" is the name of an embedding in this WebUI, which would stand in '
                    'its place. Choose another token, such as "ohwx" or "zwx".'
                )

    def preview(
        self,
        prompt: str,
        *,
        negative: str,
        size: tuple[int, int],
        steps: int,
        seed: int,
        sampler: str = "",
        guidance: float | None = None,
    ) -> Image.Image:
        """By the WebUI's own txt2img, which leaves no file, no last prompt and no progress of its
        own behind. sampler: as the WebUI names it."""
        job = txt2img.job(prompt, negative=negative, size=size, steps=steps, seed=seed,
                          sampler=sampler, guidance=guidance)  # fmt: skip
        job.disable_extra_networks = True  # the branches are on the model; nothing else may come
        with txt2img.undisturbed(), self._drawing(job):
            return txt2img.image(job)

    def _first_convolution(self) -> nn.Conv2d:
        first: nn.Conv2d = self.unet.input_blocks[0][0]  # type: ignore[index, union-attr, assignment]
        return first

    def _title(self) -> str:
        return PureWindowsPath(self._info.filename).name  # it knows both slashes


@contextlib.contextmanager
def _kept_loaded(model: Any) -> Iterator[None]:
    """ "Unload checkpoint" does not wait for the queue (modules/api/api.py:654): meanwhile it is
    refused. Each of our previews would load the model again where the option "FP8 weight" is
    another one now (modules/processing.py:835, modules/sd_models.py:952): not before the run gives
    it back."""

    def refuse(*_: Any, **__: Any) -> None:
        from fastapi import HTTPException  # what both APIs answer with; Forge's knows no other

        raise HTTPException(
            409, "UnZipLoRA is training on this checkpoint. Pause or stop the run, then unload it."
        )

    models = webui("sd_models")
    with (
        replaced("unload_model_weights", models, refuse),
        replaced("reload_model_weights", models, lambda *_, **__: model),
    ):
        yield


def _stored_in_fp8() -> bool:
    """Whether the WebUI keeps the loaded model in fp8 (modules/sd_models.py:503); Forge's relatives
    have no such option."""
    return bool(getattr(webui("devices"), "fp8", False))


@contextlib.contextmanager
def _no_hypernetworks() -> Iterator[None]:
    """Those of an earlier image are not used (Automatic1111, and ersatzForge's
    backend/nn/unet.py:152)."""
    shared = webui("shared")
    kept = getattr(shared, "loaded_hypernetworks", None)
    if kept is None:
        yield
        return
    shared.loaded_hypernetworks = []
    try:
        yield
    finally:
        shared.loaded_hypernetworks = kept


@contextlib.contextmanager
def replaced(name: str, home: ModuleType, substitute: Callable[..., Any]) -> Iterator[None]:
    """Meanwhile a function of the WebUI's module `home` is another one, also in the modules that
    imported it by its name. Does nothing where the WebUI has no such function."""
    original = getattr(home, name, None)
    if original is None:
        yield
        return
    places = [
        module for module in list(sys.modules.values()) if vars_of(module).get(name) is original
    ]
    try:
        for place in places:
            setattr(place, name, substitute)
        yield
    finally:
        for place in places:
            setattr(place, name, original)


def vars_of(module: Any) -> Mapping[str, Any]:
    """sys.modules may hold anything, also what has no names."""
    return getattr(module, "__dict__", {})


def no_model(chosen: str | None, reason: BaseException | None = None) -> InvalidInput:
    """What to say where there is no model. chosen: the title of the checkpoint that was to be
    loaded, if any; reason: what its loading raised, where that is known."""
    if not chosen:
        return InvalidInput("No checkpoint is chosen. Choose an SDXL checkpoint first.")
    why = "the WebUI's console says why" if reason is None else _in_one_line(reason)
    return InvalidInput(
        f"{PureWindowsPath(chosen).name} cannot be loaded ({why}). Choose an SDXL checkpoint that "
        "the WebUI can draw with."
    )


def _in_one_line(reason: BaseException) -> str:
    message = " ".join(str(reason).split())[:200].rstrip(" .!")
    return f"{type(reason).__name__}: {message}" if message else type(reason).__name__


def zero_snr_chosen() -> bool:
    """Whether the WebUI's option "Noise schedule for sampling" asks for zero terminal SNR."""
    return bool(option("sd_noise_schedule", "Default") == "Zero Terminal SNR")
