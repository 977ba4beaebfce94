"""Forge (f2.0.1v1.10.1) as a host. Lines in comments are those of dfdcbab6."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.host import SizeIds
from unziplora.hosts.webui.base import zero_snr_chosen
from unziplora.hosts.webui.forge_base import ForgeObjectsHost, Regulation
from unziplora.hosts.webui.txt2img import webui

_SIZE_NUMBERS = 6  # original, crop and target, two each (backend/diffusion_engine/sdxl.py:98)


def _backend(name: str) -> Any:
    return importlib.import_module(f"backend.{name}")


def chosen_model() -> Any:
    """What Forge calls `shared.sd_model`, of the checkpoint that is chosen: it loads one when that
    is first used (modules/sd_models.py:473). Raises InvalidInput where none is chosen."""
    with webui("call_queue").queue_lock:
        try:
            webui("sd_models").forge_model_reload()
        except ValueError as error:
            raise InvalidInput(
                "No checkpoint is chosen. Choose an SDXL checkpoint first."
            ) from error
    return webui("shared").sd_model


def loaded_model() -> Any | None:
    """The same, where that is loaded already, without waiting for anything; else None."""
    data = webui("sd_models").model_data
    return data.sd_model if data.forge_hash == str(data.forge_loading_parameters) else None


class ForgeHost(ForgeObjectsHost):
    """An SDXL checkpoint in Forge: `Host` of host.py.

    prediction_type: instead of what the model says. Raises InvalidInput where the checkpoint is not
    of SDXL's family.
    """

    def _said(self) -> str:
        said: str = self._kmodel.predictor.prediction_type
        return said

    def _memory(self) -> Any:
        return _backend("memory_management")

    @property
    def alphas_cumprod(self) -> Tensor:
        """The schedule that images are sampled with. Forge changes its sigmas to one with zero
        terminal SNR while it samples, by the option or for a checkpoint with the marker `ztsnr`
        (modules/processing.py:985), and never `alphas_cumprod`. A copy: that is an inference
        tensor."""
        alphas: Tensor = self._kmodel.predictor.alphas_cumprod.float().to(self.device).clone()
        if not (zero_snr_chosen() or getattr(self._model.model_config, "ztsnr", False)):
            return alphas
        rescaled = _backend("modules.k_prediction").rescale_zero_terminal_snr_sigmas
        return 1 / (1 + rescaled(((1 - alphas) / alphas).sqrt()) ** 2)  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """A checkpoint that is chosen meanwhile is loaded by the first generation after the run,
        and not by our previews (modules/processing.py:804 and 935)."""
        places = (webui("sd_models"), webui("processing"))
        reload = places[0].forge_model_reload
        for place in places:
            place.forge_model_reload = lambda: (self._model, False)
        try:
            yield
        finally:
            for place in places:
                place.forge_model_reload = reload

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """context (n, 77 k, width) and pooled (n, width), as Forge reads prompts.

        Raises InvalidInput for a word that is the name of an installed embedding.
        """
        embeddings = self._model.text_processing_engine_l.embeddings.word_embeddings
        self._refuse_embeddings(prompts, list(embeddings))
        batch = webui("prompt_parser").SdConditioning(list(prompts))
        with self._given_back():
            found = self._model.get_learned_conditioning(batch)
        vector = found["vector"]
        sizes = _SIZE_NUMBERS * self._model.embedder.dim
        with torch.no_grad():  # copies: these are inference tensors
            pooled = vector[:, : vector.shape[1] - sizes].clone().to(self.device)
            return found["crossattn"].clone().to(self.device), pooled

    @torch.no_grad()
    def added_conditioning(self, pooled: Tensor, sizes: SizeIds) -> Tensor:
        numbers = (*sizes.original, *sizes.crop, *sizes.target)
        told = [self._model.embedder(torch.tensor([float(number)])) for number in numbers]
        flat = torch.cat(told).flatten().to(pooled).expand(len(pooled), -1)
        return torch.cat([pooled, flat], dim=1)

    @contextlib.contextmanager
    def _regulated(self, vae: Any, regulation: Regulation) -> Iterator[None]:
        """By an option of its own (backend/nn/vae.py:300)."""
        options = vae.patcher.model_options
        kept = options.get("model_vae_regulation")
        options["model_vae_regulation"] = regulation
        try:
            yield
        finally:
            if kept is None:
                del options["model_vae_regulation"]
            else:
                options["model_vae_regulation"] = kept

    def _scaled(self, vae: Any, latents: Tensor) -> Tensor:
        scaled: Tensor = vae.first_stage_model.process_in(latents)
        return scaled

    def _computation_dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._kmodel.computation_dtype
        return dtype
