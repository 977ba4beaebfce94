"""Forge (f2.0.1v1.10.1) and ersatzForge as hosts. Lines in comments are Forge's, of dfdcbab6."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from unziplora.host import SizeIds
from unziplora.hosts.webui.base import no_model, replaced, zero_snr_chosen
from unziplora.hosts.webui.forge_base import ForgeObjectsHost, Regulation
from unziplora.hosts.webui.txt2img import webui

_SIZE_NUMBERS = 6  # original, crop and target, two each (backend/diffusion_engine/sdxl.py:98)


def _backend(name: str) -> Any:
    return importlib.import_module(f"backend.{name}")


class ForgeHost(ForgeObjectsHost):
    """An SDXL checkpoint in Forge: `Host` of host.py.

    prediction_type: instead of what the model says. Raises InvalidInput where the checkpoint is not
    of SDXL's family.
    """

    @classmethod
    def _load_chosen(cls) -> Any:
        """It is loaded when it is first used (modules/sd_models.py:473), and then the WebUI says in
        many ways that it cannot be: by ValueError, AssertionError, KeyError, ..."""
        models = webui("sd_models")
        chosen = models.model_data.forge_loading_parameters.get("checkpoint_info")
        if chosen is None:
            raise no_model(None)
        try:
            models.forge_model_reload()
        except Exception as error:
            raise no_model(chosen.filename, error) from error
        return webui("shared").sd_model

    @classmethod
    def loaded_model(cls) -> Any | None:
        data = webui("sd_models").model_data
        parameters = str(data.forge_loading_parameters)
        # ersatzForge keeps a hash of them (its modules/sd_models.py:370)
        if data.forge_hash not in (parameters, hash(parameters)):
            return None
        return data.sd_model if hasattr(data.sd_model, "forge_objects") else None

    def _is_chosen(self) -> bool:
        return self.loaded_model() is self._model

    def _has_both_text_encoders(self) -> bool:
        return hasattr(self._model, "text_processing_engine_l")

    def _stated_prediction(self) -> str:
        predictor = self._kmodel.predictor
        prediction: str = getattr(predictor, "prediction_type", type(predictor).__name__)
        return prediction

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

    def _kept(self) -> contextlib.AbstractContextManager[None]:
        """A checkpoint that is chosen meanwhile is loaded by the first generation after the run,
        and not by our previews (modules/processing.py:804 and 935)."""
        return replaced(
            "forge_model_reload", webui("sd_models"), lambda *_, **__: (self._model, False)
        )

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """context (n, 77 k, width) and pooled (n, width), as Forge reads prompts.

        Raises InvalidInput for a word that is the name of an installed embedding.
        """
        embeddings = self._model.text_processing_engine_l.embeddings.word_embeddings
        self._refuse_embeddings(prompts, list(embeddings))
        batch = webui("prompt_parser").SdConditioning(list(prompts))
        with self._restored():
            found = self._model.get_learned_conditioning(batch)
        vector = found["vector"]
        sizes = _SIZE_NUMBERS * self._model.embedder.dim
        with torch.no_grad():  # copies: these are inference tensors
            pooled = vector[:, : vector.shape[1] - sizes].clone().to(self.device)
            return found["crossattn"].clone().to(self.device), pooled

    @torch.no_grad()
    def added_conditioning(self, pooled: Tensor, sizes: SizeIds) -> Tensor:
        numbers = (*sizes.original, *sizes.crop, *sizes.target)
        embedded = [self._model.embedder(torch.tensor([float(number)])) for number in numbers]
        flat = torch.cat(embedded).flatten().to(pooled).expand(len(pooled), -1)
        return torch.cat([pooled, flat], dim=1)

    @contextlib.contextmanager
    def _regulated(self, vae: Any, regulation: Regulation) -> Iterator[None]:
        """The VAE's posterior samples with the global generator (backend/nn/vae.py:34). Forge has
        an option to change that, which Neo and ersatzForge dropped."""
        module = importlib.import_module(type(vae.first_stage_model).__module__)
        posterior = module.DiagonalGaussianDistribution
        original = posterior.sample
        posterior.sample = regulation
        try:
            yield
        finally:
            posterior.sample = original

    def _scaled(self, vae: Any, latents: Tensor) -> Tensor:
        scaled: Tensor = vae.first_stage_model.process_in(latents)
        return scaled

    def _computation_dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._kmodel.computation_dtype
        return dtype


class ErsatzForgeHost(ForgeHost):
    """ersatzForge (f2.ersatz), whose blocks overwrite the input of their third norm too
    (backend/nn/unet.py:290)."""

    _overwritten = ("norm1", "norm2", "norm3")
