"""Tells ComfyUI of small checkpoints, and answers what a test asks of it. Tests only.

ComfyUI knows SDXL by its widths, and its text encoders and VAE by name. What it must know of a
smaller one stands in the folder UNZIPLORA_TEST_CONFIGS (tests/hosts/checkpoints.py).
"""

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import comfy.model_base
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import comfy.supported_models_base
import folder_paths
import nodes
import torch
from aiohttp import web
from server import PromptServer

CONFIGS = Path(os.environ["UNZIPLORA_TEST_CONFIGS"])


def read(folder, part):
    return json.loads((folder / part / "config.json").read_text("utf-8"))


def text_model(config):
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
    return {name: config[name] for name in names}


def add_models():
    """A class for each checkpoint, as comfy/supported_models.py has them."""
    for folder in CONFIGS.iterdir():
        unet = read(folder, "unet")
        options = {
            "clip_l_model_config": text_model(read(folder, "text_encoder")),
            "clip_g_model_config": text_model(read(folder, "text_encoder_2")),
        }
        velocity = read(folder, "scheduler")["prediction_type"] == "v_prediction"
        add_model(folder.name, unet, options, velocity)


def add_model(name, unet, options, velocity):
    class Clip(comfy.sdxl_clip.SDXLClipModel):
        """Penultimate layers are named from the front: ComfyUI takes -2 of more than two only."""

        def __init__(self, device="cpu", dtype=None, model_options=None):
            torch.nn.Module.__init__(self)
            given = {"device": device, "dtype": dtype, "layer": "hidden",
                     "model_options": {**(model_options or {}), **options}}  # fmt: skip
            first, second = (options[f"clip_{one}_model_config"] for one in "lg")
            self.clip_l = comfy.sd1_clip.SDClipModel(
                layer_idx=first["num_hidden_layers"] - 2, layer_norm_hidden_state=False, **given
            )
            self.clip_g = comfy.sdxl_clip.SDXLClipG(
                layer_idx=second["num_hidden_layers"] - 2, **given
            )
            self.dtypes = {dtype}

    class Small(comfy.supported_models.SDXL):
        unet_config = {  # noqa: RUF012
            "model_channels": unet["block_out_channels"][0],
            "use_linear_in_transformer": True,
            "context_dim": unet["cross_attention_dim"],
            "adm_in_channels": unet["projection_class_embeddings_input_dim"],
        }

        def model_type(self, state_dict, prefix=""):
            kinds = comfy.model_base.ModelType
            return kinds.V_PREDICTION if velocity else super().model_type(state_dict, prefix)

        def clip_target(self, state_dict=None):
            tokenizer = comfy.sdxl_clip.SDXLTokenizer
            return comfy.supported_models_base.ClipTarget(tokenizer, Clip)

    Small.__name__ = f"Small{name}"
    comfy.supported_models.models.insert(0, Small)


def add_vaes():
    """A VAE's widths, from its weights: ComfyUI takes 128, 256, 512, 512."""
    configs = {}
    for folder in CONFIGS.iterdir():
        vae = read(folder, "vae")
        widths = vae["block_out_channels"]
        configs[widths[0]] = {
            "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3,
            "ch": widths[0], "ch_mult": [width // widths[0] for width in widths],
            "num_res_blocks": vae["layers_per_block"], "attn_resolutions": [], "dropout": 0.0,
        }  # fmt: skip
    original = comfy.sd.VAE.__init__

    def with_config(self, sd=None, device=None, config=None, dtype=None, metadata=None):
        first = (sd or {}).get("encoder.conv_in.weight")
        if config is None and first is not None and first.shape[0] in configs:
            config = {"params": {"ddconfig": configs[first.shape[0]], "embed_dim": 4}}
        original(self, sd, device, config, dtype, metadata)

    comfy.sd.VAE.__init__ = with_config


def checksum(module):
    digest = hashlib.sha256()
    with torch.no_grad():
        for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()]):
            data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(name.encode() + bytes(data.numpy()))
    return digest.hexdigest()


def traits(module):
    """What training changes for its time."""
    modules, tensors = list(module.modules()), list(module.parameters())
    return {
        "weights": checksum(module),
        "tensors": len(tensors),
        "wrapped": sum("forward" in m.__dict__ for m in modules),
        "hooks": sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in modules),
        "training": sum(m.training for m in modules),
        "requires_grad": sum(p.requires_grad for p in tensors),
        "inference": sum(p.is_inference() for p in tensors),
        "gradients": sum(p.grad is not None for p in tensors if not p.is_inference()),
        "dtypes": sorted({str(p.dtype) for p in tensors}),
    }


class Probe:
    """Writes down what a model, its CLIP and its VAE are made of."""

    RETURN_TYPES = ()
    FUNCTION = "probe"
    OUTPUT_NODE = True
    CATEGORY = "UnZipLoRA tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        inputs = {"model": ("MODEL",), "clip": ("CLIP",), "vae": ("VAE",)}
        return {"required": inputs, "optional": {"tag": ("STRING", {})}}

    def probe(self, model, clip, vae, tag=""):
        found = {
            "unet": traits(model.model.diffusion_model),
            "text": traits(clip.cond_stage_model),
            "vae": traits(vae.first_stage_model),
        }
        return {"ui": {"found": [json.dumps(found, sort_keys=True)]}}


class Spoil:
    """A model with something of another node on it: a name of a kind."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "spoil"
    CATEGORY = "UnZipLoRA tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        kinds = ["object", "attention", "hook", "injection"]
        return {"required": {"model": ("MODEL",), "kind": (kinds,)}}

    def spoil(self, model, kind):
        model = model.clone()
        if kind == "object":
            layer = model.get_model_object("diffusion_model.input_blocks.0.0")
            model.add_object_patch("diffusion_model.input_blocks.0.0", layer)
        elif kind == "attention":
            options = model.model_options["transformer_options"]
            options["optimized_attention_override"] = without_gradients
        elif kind == "hook":
            layer = model.model.diffusion_model.get_submodule("input_blocks.4.1")
            layer.register_forward_hook(lambda module, given, result: result * 2)
        else:
            model.injections["another"] = [object()]
        return (model,)


class Load:
    """A checkpoint whose weights are kept in another dtype, as options of ComfyUI do it."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"
    CATEGORY = "UnZipLoRA tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        names = folder_paths.get_filename_list("checkpoints")
        return {"required": {"ckpt_name": (names,), "dtype": (["float16", "float8_e4m3fn"],)}}

    def load(self, ckpt_name, dtype):
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        options = {"dtype": getattr(torch, dtype)}
        return comfy.sd.load_checkpoint_guess_config(path, model_options=options)[:3]


class Others:
    """CLIP and VAEs of other models, so far as a node looks at them."""

    RETURN_TYPES = ("CLIP", "VAE", "VAE")
    FUNCTION = "others"
    CATEGORY = "UnZipLoRA tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {}}

    def others(self):
        wide = SimpleNamespace(latent_channels=16, downscale_ratio=8, first_stage_model=None)
        approximate = SimpleNamespace(
            latent_channels=4, downscale_ratio=8, first_stage_model=torch.nn.Identity()
        )
        return (SimpleNamespace(cond_stage_model=torch.nn.Identity()), wide, approximate)


def without_gradients(attention, *args, **kwargs):
    """As SageAttention: its result has no history."""
    with torch.no_grad():
        return attention(*args, **kwargs)


@PromptServer.instance.routes.post("/test/slow")
async def slow(request):
    """Every training step takes so many seconds longer."""
    import time

    from unziplora.training.trainer import Trainer

    seconds = (await request.json())["seconds"]
    advance = getattr(Trainer, "_plain_advance", Trainer.advance)
    Trainer._plain_advance = advance

    def slower(self):
        time.sleep(seconds)
        return advance(self)

    Trainer.advance = slower if seconds else advance
    return web.json_response({})


add_models()
add_vaes()
NODE_CLASS_MAPPINGS = {
    "TestProbe": Probe,
    "TestSpoil": Spoil,
    "TestLoad": Load,
    "TestOthers": Others,
}
assert "TestProbe" not in nodes.NODE_CLASS_MAPPINGS
