"""What a model may be that is none of SDXL's family, and the sentence that says so."""

from __future__ import annotations

from pathlib import Path

from unziplora.checkpoints.header import CheckpointHeader
from unziplora.checkpoints.key_map import CLIP_G, CLIP_L, UNET
from unziplora.checkpoints.load import read_json
from unziplora.errors import InvalidInput

_CHOOSE = "Choose an SDXL checkpoint (SDXL, Pony, Illustrious, NoobAI, SSD-1B, Vega or KOALA)."

_LORA = (
    ".lora_down.",
    ".lora_up.",
    ".lora_A.",
    ".lora_B.",
    ".hada_w1_a",
    ".lokr_w1",
    ".oft_blocks",
)
_QUANTISED = (".quant_state.", ".scale_weight", ".weight_scale", "scaled_fp8", ".qweight")
_EDM = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")

# the beginnings of names in files that hold a part only, or another kind of model
_OTHERS = (
    (("joint_blocks.",), "Stable Diffusion 3"),
    (("double_blocks.", "single_blocks.", "single_transformer_blocks."), "Flux"),
    (("control_model.", "controlnet_"), "a ControlNet"),
    (("image_proj.", "ip_adapter."), "an IP-Adapter"),
    (("emb_params", "clip_g", "clip_l", "string_to_param"), "a textual inversion"),
    (("first_stage_model.", "encoder.conv_in.", "decoder.conv_in."), "a VAE alone"),
    (("text_model.", "transformer.resblocks.", "encoder.block.", "conditioner.",
      "cond_stage_model."), "a text encoder alone"),
    (("input_blocks.", "down_blocks."), "a UNet alone"),
)  # fmt: skip


def refuse_file(header: CheckpointHeader) -> None:
    """Raises InvalidInput unless the file has the parts of an SDXL-family checkpoint."""
    what = _lora_or_quantised(header) or (
        _of_unet(header) if header.has(UNET) else _without_unet(header)
    )
    if what is not None:
        raise InvalidInput(f"{header.path.name} is {what}, not an SDXL checkpoint. {_CHOOSE}")


def _lora_or_quantised(header: CheckpointHeader) -> str | None:
    names = header.entries
    if any(part in name for name in names for part in _LORA):
        return "a LoRA"
    quantised = any(part in name for name in names for part in _QUANTISED)
    integers = any(
        entry.dtype in ("I8", "U8", "I32") and name.endswith("weight")
        for name, entry in header.entries.items()
    )
    return "a quantised model" if quantised or integers else None


def _of_unet(header: CheckpointHeader) -> str | None:
    def unet(*prefixes: str) -> bool:
        return header.has(*(UNET + prefix for prefix in prefixes))

    if unet("joint_blocks."):
        return "Stable Diffusion 3"
    if unet("double_blocks.", "single_blocks."):
        return "Flux"
    if not unet("input_blocks."):
        return "a model of another architecture"
    if header.has(*_EDM):
        return "an EDM model (as Playground v2.5 and CosXL)"
    if header.has("conditioner.embedders.0.model."):
        return "the SDXL refiner"
    if header.has("cond_stage_model.model."):
        return "Stable Diffusion 2"
    if header.has("cond_stage_model."):
        return "Stable Diffusion 1.5"
    if not (header.has(CLIP_L) and header.has(CLIP_G)):
        return _bare_unet(header)
    if (channels := header.shapes.get(UNET + "input_blocks.0.0.weight", (0, 4))[1]) != 4:
        return _with_channels(channels)
    return None


def _bare_unet(header: CheckpointHeader) -> str:
    contexts = {shape[1] for name, shape in header.shapes.items()
                if name.endswith("attn2.to_k.weight")}  # fmt: skip
    kinds = {768: "Stable Diffusion 1.5's", 1024: "Stable Diffusion 2's", 1280: "the refiner's"}
    whose = kinds.get(max(contexts, default=0))
    return f"{whose} UNet alone" if whose else "a UNet without its text encoders"


def _with_channels(channels: int) -> str:
    kind = {9: "an inpainting model", 8: "an image-editing model"}.get(channels, "a model")
    return f"{kind} whose UNet takes {channels} channels"


def _without_unet(header: CheckpointHeader) -> str:
    for prefixes, what in _OTHERS:
        if header.has(*prefixes):
            return what
    return "something else"


_PIPELINES = {
    "StableDiffusion3": "Stable Diffusion 3",
    "StableDiffusionXL": None,
    "StableDiffusion": "Stable Diffusion 1.5 or 2",
    "Flux": "Flux",
}


def refuse_folder(path: Path) -> None:
    """Raises InvalidInput unless the folder has the parts of an SDXL-family model for diffusers."""
    if not (path / "unet" / "config.json").is_file():
        raise InvalidInput(_no_unet(path))
    config = read_json(path / "unet" / "config.json")
    what = None
    if (channels := config.get("in_channels", 4)) != 4:
        what = _with_channels(channels)
    elif (
        not (path / "text_encoder" / "config.json").is_file()
        and (path / "text_encoder_2" / "config.json").is_file()
    ):
        what = "the SDXL refiner"
    elif config.get("addition_embed_type") != "text_time":
        widths = {768: "Stable Diffusion 1.5", 1024: "Stable Diffusion 2"}
        context = config.get("cross_attention_dim")
        what = widths.get(context if isinstance(context, int) else 0, "of another architecture")
    elif "quantization_config" in config:
        what = "a quantised model"
    elif _is_edm(path):
        what = "an EDM model (as Playground v2.5)"
    if what is not None:
        raise InvalidInput(f"{path.name} is {what}, not an SDXL model. {_CHOOSE}")
    for part in ("text_encoder", "text_encoder_2"):
        if not (path / part / "config.json").is_file():
            raise InvalidInput(f"{path.name} has no {part}/config.json. Choose a complete model.")


def _no_unet(path: Path) -> str:
    files = sorted(file.name for file in path.glob("*.safetensors"))
    if (path / "model_index.json").is_file():
        pipeline = str(read_json(path / "model_index.json").get("_class_name", ""))
        for beginning, what in _PIPELINES.items():
            if what is not None and pipeline.startswith(beginning):
                return f"{path.name} is {what}, not an SDXL model. {_CHOOSE}"
        return f"{path.name} is a {pipeline or 'model'} without an SDXL UNet. {_CHOOSE}"
    if (path / "config.json").is_file():
        return (
            f"{path.name} is one part of a diffusers model. "
            "Choose the folder above it, that with model_index.json."
        )
    if files:
        return (
            f"{path.name} is a folder with {len(files)} .safetensors files, not a diffusers model. "
            f"Choose one of the files, as {path / files[0]}."
        )
    return (
        f"{path.name} is a folder without a model. "
        "Choose a .safetensors checkpoint or a folder in diffusers' layout."
    )


def _is_edm(path: Path) -> bool:
    file = path / "scheduler" / "scheduler_config.json"
    return file.is_file() and str(read_json(file).get("_class_name", "")).startswith("EDM")
