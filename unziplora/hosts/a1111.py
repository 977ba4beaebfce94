"""Automatic1111 1.10 as a host: the checkpoint that is loaded, borrowed and given back.

File and line numbers in comments are those of Automatic1111 1.10.1. Nothing of it is imported
before a method needs it, so that the module itself loads anywhere.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from unziplora.errors import BadInput, UnZipLoRAError
from unziplora.hosts.said import defaults_in, family_in
from unziplora.training.host import Defaults, ModelIdentity, PredictionType, SizeIds
from unziplora.unet.trainable import frozen

JOB = "UnZipLoRA training"
_PREDICTIONS: dict[str, PredictionType] = {"eps": "epsilon", "v": "v_prediction"}
# input keys of sgm's size embedders, in SizeIds' words
_SIZES = {
    "original_size_as_tuple": "original",
    "crop_coords_top_left": "crop",
    "target_size_as_tuple": "target",
}


def _webui(name: str) -> Any:
    return importlib.import_module(f"modules.{name}")


class A1111Host:
    """The loaded SDXL checkpoint: `Host` of training/host.py. Made anew for every run.

    prediction_type: instead of what the WebUI says, which does not see SDXL's v-prediction by its
    marker. Raises BadInput where no SDXL-family model is loaded, or one that cannot be borrowed.
    """

    def __init__(self, prediction_type: PredictionType | None = None) -> None:
        shared = _webui("shared")
        if shared.cmd_opts.lowvram:
            raise BadInput(
                "The WebUI runs with --lowvram, which moves single layers in and out of the GPU "
                "and cannot train. Start it with --medvram-sdxl instead."
            )
        self._model = shared.sd_model  # loads it where that has not been done
        if self._model is None:
            raise BadInput("No checkpoint is loaded. Choose an SDXL checkpoint first.")
        if not getattr(self._model, "is_sdxl", False):
            raise BadInput(
                f"{self._title()} is not an SDXL checkpoint. Choose one of SDXL's family."
            )
        if getattr(self._model, "is_sdxl_inpaint", False):
            raise BadInput(
                f"{self._title()} is an inpainting model. Choose the model it was made from."
            )
        said = getattr(self._model, "parameterization", "eps")
        self.prediction_type: PredictionType = prediction_type or _PREDICTIONS.get(said, "epsilon")

    @property
    def unet(self) -> nn.Module:
        unet: nn.Module = self._model.model.diffusion_model
        return unet

    @property
    def device(self) -> torch.device:
        return torch.device(_webui("devices").device)

    @property
    def alphas_cumprod(self) -> Tensor:
        """The schedule as loaded: a zero-SNR generation leaves another one in `alphas_cumprod`
        (modules/sd_models.py:647)."""
        original = getattr(self._model, "alphas_cumprod_original", self._model.alphas_cumprod)
        alphas: Tensor = original.detach().float().to(self.device).clone()
        return alphas

    @property
    def model(self) -> ModelIdentity:
        info = self._model.sd_checkpoint_info
        name = PureWindowsPath(info.filename).name  # it knows both slashes
        return ModelIdentity(name, info.sha256, family_in(name))

    @property
    def defaults(self) -> Defaults:
        width = int(self.unet.input_blocks[0][0].out_channels)  # type: ignore[index, union-attr]
        metadata = self._model.sd_checkpoint_info.metadata or {}
        return defaults_in({k: v for k, v in metadata.items() if isinstance(v, str)}, width)

    @contextlib.contextmanager
    def borrow(self) -> Iterator[None]:
        """Waits for the WebUI's queue, removes LoRAs and hypernetworks of earlier generations,
        freezes the UNet, and puts everything back in every outcome.

        Raises UnZipLoRAError where another checkpoint was loaded while this waited.
        """
        shared, progress = _webui("shared"), _webui("progress")
        with _webui("call_queue").queue_lock:
            if shared.sd_model is not self._model:
                raise UnZipLoRAError(
                    "Another checkpoint was loaded while this run waited for its turn. "
                    f"Choose {self._title()} again and start it once more."
                )
            task = progress.create_task_id("unziplora")
            shared.state.begin(job=JOB)
            progress.start_task(task)
            modes = [(module, module.training) for module in self.unet.modules()]
            hypernetworks = shared.loaded_hypernetworks
            try:
                self._clean()
                self.unet.eval()
                with self._placed(), frozen(self.unet):
                    yield
            finally:
                shared.loaded_hypernetworks = hypernetworks
                for module, mode in modes:
                    module.training = mode
                progress.finish_task(task)
                shared.state.end()

    def _clean(self) -> None:
        """Base weights without the LoRAs that a generation left merged into them; restoration is
        lazy in the WebUI and outside no_grad (extensions-builtin/Lora/networks.py:385)."""
        _webui("shared").loaded_hypernetworks = []
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
            return
        lowvram, devices = _webui("lowvram"), _webui("devices")
        others = [self._model.conditioner, self._model.first_stage_model]
        if self._model.lowvram:
            lowvram.send_everything_to_cpu()
            self._model.model.to(self.device)
            lowvram.module_in_gpu = self._model.model
            yield  # its own hooks fetch what they need from here on
            return
        for module in others:
            module.to("cpu")
        devices.torch_gc()
        try:
            yield
        finally:
            for module in others:
                module.to(self.device)

    @contextlib.contextmanager
    def _with(self, *modules: nn.Module) -> Iterator[None]:
        """Text encoders or VAE on the device for one call; the UNet stays where it is if it can."""
        if self.device.type == "cpu":
            yield
            return
        lowvram = _webui("lowvram")
        try:
            for module in modules:
                module.to(self.device)
            yield
        finally:
            for module in modules:
                module.to("cpu")
            if self._model.lowvram:
                self._model.model.to(self.device)
                lowvram.module_in_gpu = self._model.model
            _webui("devices").torch_gc()

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """context (n, 77 k, width) and pooled (n, width), as the WebUI reads prompts: attention
        syntax counts, and one long prompt pads all.

        Raises BadInput for a word that is the name of an installed embedding.
        """
        self._refuse_embeddings(prompts)
        batch = _webui("prompt_parser").SdConditioning(list(prompts))
        with self._with(self._model.conditioner), _webui("devices").autocast():
            found = self._model.get_learned_conditioning(batch)
        vector = found["vector"]
        sizes = sum(2 * embedder.outdim for embedder in self._size_embedders().values())
        return found["crossattn"].clone(), vector[:, : vector.shape[1] - sizes].clone()

    def _refuse_embeddings(self, prompts: Sequence[str]) -> None:
        """The WebUI would put an embedding in its name's place without a word."""
        hijack = _webui("sd_hijack").model_hijack
        known = {name.lower() for name in hijack.embedding_db.word_embeddings}
        for word in dict.fromkeys(" ".join(prompts).split()):
            if word.lower().strip(",.") in known:
                raise BadInput(
                    f'"{word}" is the name of an embedding in this WebUI, which would stand in '
                    'its place. Choose another token, such as "ohwx" or "zwx".'
                )

    def _size_embedders(self) -> dict[str, Any]:
        """sgm's embedders of the size ids, by SizeIds' words, in the order of the vector."""
        return {
            _SIZES[embedder.input_key]: embedder
            for embedder in self._model.conditioner.embedders
            if embedder.input_key in _SIZES
        }

    @torch.no_grad()
    def encode_image(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Latents (1, 4, h/8, w/8), fp32, by the VAE that the user selected; in fp32 where its own
        dtype makes NaN of the picture. Raises UnZipLoRAError where that does too."""
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
        if not torch.isfinite(latents).all():
            raise UnZipLoRAError(
                "The VAE makes NaN of this picture. Choose another VAE in the WebUI's settings, "
                "such as the SDXL VAE fixed for fp16."
            )
        return latents

    def _encoded(self, vae: Any, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        with _webui("devices").without_autocast():
            # sgm's wrapper samples with the global generator; its base class gives the posterior
            posterior = super(type(vae), vae).encode(pixels)  # type: ignore[misc]
        latents: Tensor = posterior.mean.float()
        if generator is not None:
            noise = torch.randn(latents.shape, generator=generator)
            latents = latents + posterior.std.float() * noise.to(latents.device)
        return latents * float(self._model.scale_factor)

    @torch.no_grad()
    def added_conditioning(self, pooled: Tensor, sizes: SizeIds) -> Tensor:
        """sgm's vector (n, pooled and six size embeddings)."""
        parts = [pooled]
        for word, embedder in self._size_embedders().items():
            ids = torch.tensor([getattr(sizes, word)], device=pooled.device, dtype=torch.float32)
            parts.append(embedder(ids).to(pooled.dtype).expand(len(pooled), -1))
        return torch.cat(parts, dim=1)

    def denoise(self, latents: Tensor, timesteps: Tensor, context: Tensor, added: Tensor) -> Tensor:
        """The UNet's prediction (n, 4, h, w), in the dtype in which the WebUI generates."""
        devices = _webui("devices")
        dtype = devices.dtype_unet
        with devices.autocast():
            prediction: Tensor = self.unet(
                latents.to(dtype), timesteps, context=context.to(dtype), y=added.to(dtype)
            )
        return prediction

    def preview(
        self, prompt: str, *, negative: str, size: tuple[int, int], steps: int, seed: int
    ) -> Image.Image:
        """By the WebUI's own txt2img, which leaves no file, no last prompt and no progress of its
        own behind."""
        processing = _webui("processing")
        job = processing.StableDiffusionProcessingTxt2Img(
            sd_model=self._model,
            prompt=prompt,
            negative_prompt=negative,
            seed=seed,
            steps=steps,
            height=size[0],
            width=size[1],
            do_not_save_samples=True,
            do_not_save_grid=True,
        )
        job.disable_extra_networks = True  # the branches are on the model; nothing else may come
        with (
            self._undisturbed(),
            self._with(self._model.conditioner, self._model.first_stage_model),
        ):
            images = processing.process_images(job).images
        if not images:
            raise UnZipLoRAError("The WebUI made no picture. See its console.")
        picture: Image.Image = images[0]
        return picture

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """What a generation writes over: progress, and params.txt with the page's last prompt
        (modules/processing.py:975)."""
        state = _webui("shared").state
        kept = {
            name: getattr(state, name)
            for name in (
                "job",
                "job_no",
                "job_count",
                "sampling_step",
                "sampling_steps",
                "textinfo",
            )
        }
        last_prompt = Path(_webui("paths").data_path) / "params.txt"
        text = last_prompt.read_bytes() if last_prompt.is_file() else None
        try:
            yield
        finally:
            for name, value in kept.items():
                setattr(state, name, value)
            if text is not None:
                last_prompt.write_bytes(text)
            else:
                last_prompt.unlink(missing_ok=True)

    def _title(self) -> str:
        return PureWindowsPath(self._model.sd_checkpoint_info.filename).name
