"""Forge (f2.0.1v1.10.1) as a host. Lines in comments are those of dfdcbab6."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unziplora.errors import BadInput
from unziplora.hosts.sdwebui import WebUIHost, checked, latents_of, zero_snr_chosen
from unziplora.hosts.txt2img import webui
from unziplora.training.host import PredictionType, SizeIds
from unziplora.unet.trainable import frozen, normal_tensors, out_of_place

_SIZE_NUMBERS = 6  # original, crop and target, two each (backend/diffusion_engine/sdxl.py:98)


def _backend(name: str) -> Any:
    return importlib.import_module(f"backend.{name}")


def chosen_model() -> Any:
    """What Forge calls `shared.sd_model`, of the checkpoint that is chosen: it loads one when that
    is first used (modules/sd_models.py:473). Raises BadInput where none is chosen."""
    with webui("call_queue").queue_lock:
        try:
            webui("sd_models").forge_model_reload()
        except ValueError as error:
            raise BadInput("No checkpoint is chosen. Choose an SDXL checkpoint first.") from error
    return webui("shared").sd_model


def loaded_model() -> Any | None:
    """The same, where that is loaded already, without waiting for anything; else None."""
    data = webui("sd_models").model_data
    return data.sd_model if data.forge_hash == str(data.forge_loading_parameters) else None


class ForgeHost(WebUIHost):
    """An SDXL checkpoint in Forge: `Host` of training/host.py.

    prediction_type: instead of what the model says. Raises BadInput where the checkpoint is not of
    SDXL's family.
    """

    def __init__(self, model: Any, prediction_type: PredictionType | None = None) -> None:
        super().__init__(model)
        self._normal = contextlib.ExitStack()
        said = self._kmodel.predictor.prediction_type
        if prediction_type is None and said not in ("epsilon", "v_prediction"):
            raise BadInput(
                f"{self._title()} predicts {said!r}, which cannot be trained here. "
                "Choose an SDXL checkpoint that predicts epsilon or v."
            )
        self.prediction_type = prediction_type or said

    @property
    def _kmodel(self) -> Any:
        return self._model.forge_objects.unet.model

    @property
    def unet(self) -> nn.Module:
        unet: nn.Module = self._kmodel.diffusion_model
        return unet

    @property
    def device(self) -> torch.device:
        return torch.device(_backend("memory_management").get_torch_device())

    @property
    def alphas_cumprod(self) -> Tensor:
        """The schedule that pictures are sampled with. Forge changes its sigmas to one with zero
        terminal SNR while it samples, by the option or for a checkpoint with the marker `ztsnr`
        (modules/processing.py:985), and never `alphas_cumprod`. A copy: that is an inference
        tensor."""
        alphas: Tensor = self._kmodel.predictor.alphas_cumprod.float().to(self.device).clone()
        if not (zero_snr_chosen() or getattr(self._model.model_config, "ztsnr", False)):
            return alphas
        rescaled = _backend("modules.k_prediction").rescale_zero_terminal_snr_sigmas
        return 1 / (1 + rescaled(((1 - alphas) / alphas).sqrt()) ** 2)  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def _lent(self) -> Iterator[None]:
        """The original UNet without the patches of a LoRA (backend/patcher/lora.py), on the device,
        and the others off it until a generation wants them; its inference tensors stood in for, its
        in-place blocks made safe."""
        _backend("memory_management").unload_all_models()
        self._load_unet()
        self.unet.eval()
        with self._normal, self._kept():
            self._normal.enter_context(normal_tensors(self.unet))
            with frozen(self.unet), out_of_place(self.unet):
                yield

    def _load_unet(self) -> None:
        _backend("memory_management").load_model_gpu(self._model.forge_objects_original.unet)

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

    @contextlib.contextmanager
    def _drawing(self, job: Any) -> Iterator[None]:
        """Forge moves and patches the tensors that it knows, so they are back meanwhile; and the
        LoRAs of the user's last generation stay away (modules/processing.py:957)."""
        patched = self._model.forge_objects_after_applying_lora
        self._model.forge_objects_after_applying_lora = self._model.forge_objects_original
        self._normal.close()
        try:
            with self._original():
                yield
        finally:
            self._model.forge_objects_after_applying_lora = patched
            self._load_unet()
            self._normal.enter_context(normal_tensors(self.unet))

    @contextlib.contextmanager
    def _original(self) -> Iterator[None]:
        """Text encoders and VAE without the patches of an earlier generation."""
        kept = self._model.forge_objects
        self._model.forge_objects = self._model.forge_objects_original.shallow_copy()
        try:
            yield
        finally:
            self._model.forge_objects = kept

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """context (n, 77 k, width) and pooled (n, width), as Forge reads prompts.

        Raises BadInput for a word that is the name of an installed embedding.
        """
        embeddings = self._model.text_processing_engine_l.embeddings.word_embeddings
        self._refuse_embeddings(prompts, list(embeddings))
        batch = webui("prompt_parser").SdConditioning(list(prompts))
        with self._original():
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

    def encode_image(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Latents (1, 4, h/8, w/8), fp32, by the VAE that the user selected. Raises
        UnZipLoRAError where it makes NaN of the picture."""
        with self._original(), torch.inference_mode():
            vae = self._model.forge_objects.vae
            options = vae.patcher.model_options
            kept = options.get("model_vae_regulation")
            # what the VAE does with its posterior (backend/nn/vae.py:300)
            options["model_vae_regulation"] = lambda posterior: latents_of(posterior, generator)
            try:
                encoded = vae.encode(pixels.movedim(1, -1) * 0.5 + 0.5)
                encoded = vae.first_stage_model.process_in(encoded)
            finally:
                if kept is None:
                    del options["model_vae_regulation"]
                else:
                    options["model_vae_regulation"] = kept
        with torch.no_grad():
            return checked(encoded.clone().float().to(self.device))

    def denoise(self, latents: Tensor, timesteps: Tensor, context: Tensor, added: Tensor) -> Tensor:
        """The UNet's prediction (n, 4, h, w), in Forge's computation dtype."""
        dtype = self._kmodel.computation_dtype
        prediction: Tensor = self.unet(
            latents.to(dtype),
            timesteps.float(),
            context=context.to(dtype),
            y=added.to(dtype),
            transformer_options={},
        )
        return prediction
