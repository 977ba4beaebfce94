"""Automatic1111 1.10 as a host. Lines in comments are those of 1.10.1."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unziplora.errors import InvalidInput
from unziplora.host import PredictionType, SizeIds
from unziplora.hosts.posterior import checked, latents_of
from unziplora.hosts.webui import conditioning as sgm
from unziplora.hosts.webui.base import (
    OTHER_VAE,
    WebUIHost,
    zero_snr_chosen,
)
from unziplora.hosts.webui.options import argument
from unziplora.hosts.webui.txt2img import webui
from unziplora.unet.patches import frozen

_PREDICTIONS: dict[str, PredictionType] = {"eps": "epsilon", "v": "v_prediction"}


class A1111Host(WebUIHost):
    """The loaded SDXL checkpoint: `Host` of host.py.

    prediction_type: instead of what the WebUI says, which does not see SDXL's v-prediction by its
    marker. Raises InvalidInput where no SDXL-family model is loaded, or one that cannot be
    borrowed.
    """

    def __init__(self, model: Any, prediction_type: PredictionType | None = None) -> None:
        super().__init__(model)
        if argument("lowvram", False):
            raise InvalidInput(
                "The WebUI runs with --lowvram, which moves single layers in and out of the GPU "
                "and cannot train. Start it with --medvram-sdxl instead."
            )
        self._refuse_hand_cast_fp8()
        self._refuse_another_unet()
        parameterization = getattr(self._model, "parameterization", "eps")
        self.prediction_type = prediction_type or _PREDICTIONS.get(parameterization, "epsilon")

    def _refuse_hand_cast_fp8(self) -> None:
        """Where torch has no autocast, the WebUI casts each fp8 layer in place and back, which a
        backward pass does not survive (modules/devices.py:151)."""
        devices = webui("devices")
        by_hand = (
            devices.dtype_inference == torch.float32
            or devices.has_xpu()
            or devices.has_mps()
            or devices.cuda_no_autocast()
        )
        if devices.fp8 and by_hand and self.device.type != "cpu":
            raise InvalidInput(
                "The checkpoint is stored in fp8, which cannot be trained on with this device. "
                'Set "FP8 weight" to "Disable" in the WebUI\'s settings.'
            )

    def _refuse_another_unet(self) -> None:
        """The option "SD Unet" has an engine of its own compute in the UNet's place
        (modules/sd_unet.py:88): training would change nothing that it reads."""
        if getattr(webui("sd_unet"), "current_unet", None) is not None:
            raise InvalidInput(
                "Images are made by another engine than the checkpoint's UNet, which cannot be "
                'trained. Set "SD Unet" to "None" in the WebUI\'s settings.'
            )

    def _has_both_text_encoders(self) -> bool:
        return sgm.text_encoders(self._model) > 1

    @property
    def unet(self) -> nn.Module:
        unet: nn.Module = self._model.model.diffusion_model
        return unet

    @property
    def alphas_cumprod(self) -> Tensor:
        """The schedule that images are sampled with: the model's, or by the option one with zero
        terminal SNR. `alphas_cumprod` holds what the last generation used
        (modules/sd_models.py:647)."""
        original = getattr(self._model, "alphas_cumprod_original", self._model.alphas_cumprod)
        alphas: Tensor = original.detach().float().to(self.device).clone()
        if zero_snr_chosen():
            alphas = webui("sd_models").rescale_zero_terminal_snr_abar(alphas)
        return alphas

    def _encoders(self) -> list[nn.Module]:
        return [self._model.conditioner, self._model.first_stage_model]

    @contextlib.contextmanager
    def _trainable(self) -> Iterator[None]:
        self._clean()
        self.unet.eval()
        with self._placed(), frozen(self.unet):
            yield

    def _clean(self) -> None:
        """Base weights without the LoRAs that a generation left merged into them; restoration is
        lazy in the WebUI and outside no_grad (extensions-builtin/Lora/networks.py:385)."""
        networks = sys.modules.get("networks")  # its Lora extension, unless it is disabled
        if networks is None:
            return
        networks.load_networks([])
        with torch.no_grad():
            for module in self._model.modules():
                if getattr(module, "network_current_names", ()) != ():
                    networks.network_apply_weights(module)

    @contextlib.contextmanager
    def _placed(self) -> Iterator[None]:
        """The UNet on the device, text encoders and VAE off it, and afterwards as it was.

        Under --medvram a hook on `sd_model.model` would do that, but training calls the UNet
        within it (modules/lowvram.py:60)."""
        if self.device.type == "cpu":
            yield
        elif self._model.lowvram:
            self._unet_on_device()
            yield  # its own hooks fetch what they need from here on
        else:
            others = [self._model.conditioner, self._model.first_stage_model]
            for module in others:
                module.to("cpu")
            webui("devices").torch_gc()
            try:
                yield
            finally:
                for module in others:
                    module.to(self.device)

    def _unet_on_device(self) -> None:
        """What a hook of --medvram does when the UNet is wanted, so that it knows of it."""
        lowvram = webui("lowvram")
        lowvram.send_everything_to_cpu()
        self._model.model.to(self.device)
        lowvram.module_in_gpu = self._model.model

    @contextlib.contextmanager
    def _with(self, *modules: nn.Module) -> Iterator[None]:
        """Text encoders or VAE on the device for one call."""
        if self.device.type == "cpu":
            yield
            return
        try:
            for module in modules:
                module.to(self.device)
            yield
        finally:
            for module in modules:
                module.to("cpu")
            if self._model.lowvram:
                self._unet_on_device()
            webui("devices").torch_gc()

    def _drawing(self, job: Any) -> contextlib.AbstractContextManager[None]:
        # modules/processing.py:828 and 941
        job.override_settings = {"sd_model_checkpoint": self._model.sd_checkpoint_info.name}
        return self._with(self._model.conditioner, self._model.first_stage_model)

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """context (n, 77 k, width) and pooled (n, width), as the WebUI reads prompts.

        Raises InvalidInput for a word that is the name of an installed embedding.
        """
        self._refuse_embeddings(prompts, sgm.embeddings())
        with self._with(self._model.conditioner), webui("devices").autocast():
            return sgm.encoded(self._model, prompts)

    def added_conditioning(self, pooled: Tensor, sizes: SizeIds) -> Tensor:
        """sgm's vector (n, pooled and six size embeddings)."""
        return sgm.vector(self._model, pooled, sizes)

    @torch.no_grad()
    def encode_image(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Latents (1, 4, h/8, w/8), fp32, by the VAE that the user selected; in fp32 where its own
        dtype makes NaN of the image. Raises UnZipLoRAError where that does too."""
        vae = self._model.first_stage_model
        dtype = next(vae.parameters()).dtype
        with self._with(vae):
            latents = self._encoded(vae, pixels.to(self.device, dtype), generator)
            if not torch.isfinite(latents).all():
                try:
                    vae.float()
                    latents = self._encoded(vae, pixels.to(self.device).float(), generator)
                finally:
                    vae.to(dtype)
        return checked(latents, OTHER_VAE)

    def _encoded(self, vae: Any, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        with webui("devices").without_autocast():
            # sgm's wrapper samples with the global generator; its base class gives the posterior
            posterior = super(type(vae), vae).encode(pixels)  # type: ignore[misc]
        return latents_of(posterior, generator) * float(self._model.scale_factor)

    def denoise(self, latents: Tensor, timesteps: Tensor, context: Tensor, added: Tensor) -> Tensor:
        """The UNet's prediction (n, 4, h, w), in the dtype in which the WebUI generates."""
        devices = webui("devices")
        dtype = devices.dtype_unet
        with devices.autocast():
            prediction: Tensor = self.unet(
                latents.to(dtype), timesteps, context=context.to(dtype), y=added.to(dtype)
            )
        return prediction
