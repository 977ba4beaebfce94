"""What Forge and its relatives share: a checkpoint kept as `sd_model.forge_objects`, whose parts a
memory management of their own moves and patches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.host import PredictionType
from unziplora.hosts.posterior import checked, latents_of
from unziplora.hosts.webui.base import OTHER_VAE, WebUIHost
from unziplora.unet.patches import frozen, normal_tensors, out_of_place

Regulation = Callable[[Any], Tensor]


class ForgeObjectsHost(WebUIHost):
    """prediction_type: instead of what the model says. Raises InvalidInput where the checkpoint is
    not of SDXL's family, or predicts neither epsilon nor v."""

    # norms whose input a transformer block overwrites later
    _overwritten: tuple[str, ...] = ("norm1", "norm2")

    def __init__(self, model: Any, prediction_type: PredictionType | None = None) -> None:
        super().__init__(model)
        self._normal = contextlib.ExitStack()
        prediction = self._stated_prediction()
        if prediction not in ("epsilon", "v_prediction") and (
            prediction_type is None or prediction == "const"
        ):
            raise InvalidInput(
                f"{self._title()} predicts {prediction!r}, which cannot be trained here. "
                "Choose an SDXL checkpoint that predicts epsilon or v."
            )
        self.prediction_type = prediction_type or prediction  # type: ignore[assignment]

    def _stated_prediction(self) -> str:
        """What the model predicts by its own account."""
        raise NotImplementedError

    def _memory(self) -> Any:
        """The WebUI's module that loads and unloads models."""
        raise NotImplementedError

    @property
    def _kmodel(self) -> Any:
        return self._model.forge_objects.unet.model

    @property
    def unet(self) -> nn.Module:
        unet: nn.Module = self._kmodel.diffusion_model
        return unet

    @property
    def device(self) -> torch.device:
        return torch.device(self._memory().get_torch_device())

    def _encoders(self) -> list[nn.Module]:
        parts = self._model.forge_objects_original
        return [parts.clip.cond_stage_model, parts.vae.first_stage_model]

    @contextlib.contextmanager
    def _trainable(self) -> Iterator[None]:
        """The original UNet on the device; its inference tensors stood in for, its in-place blocks
        made safe."""
        self._load_unet()
        self.unet.eval()
        with self._normal, self._kept():
            self._normal.enter_context(normal_tensors(self.unet))
            with frozen(self.unet), self._safe():
                yield

    def _safe(self) -> contextlib.AbstractContextManager[None]:
        if not self._overwritten:
            return contextlib.nullcontext()
        return out_of_place(self.unet, self._overwritten)

    def _load_unet(self) -> None:
        """Without the patches of a LoRA, and alone: the others are off the device until they are
        wanted."""
        self._memory().unload_all_models()
        self._load(self._model.forge_objects_original.unet)
        self._check_devices()

    def _load(self, patcher: Any) -> None:
        self._memory().load_model_gpu(patcher)

    def _check_devices(self) -> None:
        """The WebUI keeps layers off the GPU where memory is short, or its options say so."""
        where = [parameter.device.type for parameter in self.unet.parameters()]
        away = sum(kind != self.device.type for kind in where)
        if away:
            raise UnZipLoRAError(
                f"The WebUI keeps {away} of the {len(where)} weights of the UNet off the GPU, and "
                "training needs all of them there. Raise GPU Weights, start the WebUI without "
                "--always-low-vram, --always-no-vram, --lowvram or --novram, or free GPU memory."
            )

    def _kept(self) -> contextlib.AbstractContextManager[None]:
        """Whatever keeps a checkpoint that is chosen meanwhile from being loaded by previews."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def _restored(self) -> Iterator[None]:
        """The WebUI's own tensors, which it moves and patches, and all parts of the model without
        the patches of an earlier generation."""
        kept = self._model.forge_objects
        self._model.forge_objects = self._model.forge_objects_original.shallow_copy()
        self._normal.close()
        try:
            yield
        finally:
            self._model.forge_objects = kept
            self._load_unet()
            self._normal.enter_context(normal_tensors(self.unet))

    @contextlib.contextmanager
    def _drawing(self, job: Any) -> Iterator[None]:
        """The LoRAs of the user's last generation stay away (Forge's modules/processing.py:957)."""
        patched = self._model.forge_objects_after_applying_lora
        self._model.forge_objects_after_applying_lora = self._model.forge_objects_original
        try:
            with self._restored():
                yield
        finally:
            self._model.forge_objects_after_applying_lora = patched

    def encode_image(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Latents (1, 4, h/8, w/8), fp32, by the VAE that the user selected. Raises
        UnZipLoRAError where it makes NaN of the image."""
        calls = 0

        def regulation(posterior: Any) -> Tensor:
            nonlocal calls
            calls += 1
            return latents_of(posterior, generator)

        with self._restored(), torch.inference_mode():
            vae = self._model.forge_objects.vae
            with self._regulated(vae, regulation):
                encoded = self._scaled(vae, vae.encode(pixels.movedim(1, -1) * 0.5 + 0.5))
        if not calls:
            raise UnZipLoRAError(
                "This version of the WebUI encodes images in a way that UnZipLoRA does not know, "
                "so a seed would not give the same result again. Update UnZipLoRA, or report it."
            )
        with torch.no_grad():
            return checked(encoded.clone().float().to(self.device), OTHER_VAE)

    def _regulated(
        self, vae: Any, regulation: Regulation
    ) -> contextlib.AbstractContextManager[None]:
        """`regulation` is what the VAE does with its posterior (it samples with the global
        generator)."""
        raise NotImplementedError

    def _scaled(self, vae: Any, latents: Tensor) -> Tensor:
        """Latents as the UNet takes them."""
        raise NotImplementedError

    def _computation_dtype(self) -> torch.dtype:
        raise NotImplementedError

    def denoise(self, latents: Tensor, timesteps: Tensor, context: Tensor, added: Tensor) -> Tensor:
        """The UNet's prediction (n, 4, h, w), in the WebUI's computation dtype."""
        dtype = self._computation_dtype()
        prediction: Tensor = self.unet(
            latents.to(dtype),
            timesteps.float(),
            context=context.to(dtype),
            y=added.to(dtype),
            transformer_options={},
        )
        return prediction
