"""What a test asks the running WebUI: what its model is made of, and to fail when told to. Also
tells Forge of small checkpoints. Tests only.
"""

import hashlib
import importlib
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path

import torch
from modules import script_callbacks, sd_models, shared

CONFIGS = Path(os.environ["UNZIPLORA_TEST_CONFIGS"])
ROOT = Path(__file__).resolve().parents[4]


def tell_forge():
    """huggingface_guess finds a checkpoint by its UNet's numbers; the repository it names may be a
    folder (backend/loader.py:517 joins the paths)."""
    from huggingface_guess import model_list

    for folder in CONFIGS.iterdir():
        unet = json.loads((folder / "unet" / "config.json").read_text("utf-8"))
        numbers = {
            "model_channels": unet["block_out_channels"][0],
            "use_linear_in_transformer": True,
            "context_dim": unet["cross_attention_dim"],
            "adm_in_channels": unet["projection_class_embeddings_input_dim"],
        }
        own = {"unet_config": numbers, "huggingface_repo": str(folder)}
        small = type(f"Small{folder.name}", (model_list.SDXL,), own)
        model_list.models.insert(0, small)
        # Forge Neo asks for the class itself (its backend/loader.py:947)
        engine = importlib.import_module("backend.diffusion_engine.sdxl").StableDiffusionXL
        engine.matched_guesses.append(small)


def parts():
    """UNet, text encoders and VAE of the loaded model, in either WebUI."""
    model = shared.sd_model
    if hasattr(model, "forge_objects_original"):
        objects = model.forge_objects_original
        return {
            "unet": objects.unet.model.diffusion_model,
            "text": objects.clip.cond_stage_model,
            "vae": objects.vae.first_stage_model,
        }
    return {
        "unet": model.model.diffusion_model,
        "text": model.conditioner,
        "vae": model.first_stage_model,
    }


def checksum(module):
    digest = hashlib.sha256()
    with torch.no_grad():
        for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()]):
            data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(name.encode() + bytes(data.numpy()))
    return digest.hexdigest()


def weights():
    return {name: checksum(module) for name, module in parts().items()}


def traits():
    """What training changes for its time, of the UNet and its neighbours."""
    told = {}
    for name, module in parts().items():
        modules, tensors = list(module.modules()), list(module.parameters())
        told[name] = {
            "tensors": len(tensors),
            "wrapped": sum("forward" in m.__dict__ for m in modules),
            "hooks": sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in modules),
            "training": sum(m.training for m in modules),
            "requires_grad": sum(p.requires_grad for p in tensors),
            "inference": sum(p.is_inference() for p in tensors),
            "gradients": sum(p.grad is not None for p in tensors if not p.is_inference()),
            "dtypes": sorted({str(p.dtype) for p in tensors}),
            "addresses": hashlib.sha256(
                " ".join(str(p.data_ptr()) for p in tensors).encode()
            ).hexdigest(),
        }
    return told


def matched(name: str):
    """Layers that Automatic1111's Lora extension finds for a file."""
    networks = sys.modules["networks"]
    networks.list_available_networks()
    found = networks.load_network(name, networks.available_network_aliases[name])
    return {"layers": len(found.modules)}


def fail(step: int):
    """The next run raises in its backward pass after `step` steps."""
    trainer = importlib.import_module("unziplora.training.trainer").Trainer
    backward = trainer._backward

    def broken(self, *arguments):
        if self.step == step:
            trainer._backward = backward
            raise RuntimeError("a test requested this")
        return backward(self, *arguments)

    trainer._backward = broken


def paced():
    """The class of trainers, whose steps take `_slower` seconds longer and end at step `_last`
    until that is another one. Kept on the class: Reload UI makes this module anew."""
    trainer = importlib.import_module("unziplora.training.trainer").Trainer
    if not hasattr(trainer, "_slower"):
        advance = trainer.advance
        trainer._slower, trainer._last, trainer._stands = 0.0, None, None

        def slower(self):
            time.sleep(trainer._slower)
            # Reload UI waits for the step that is under way
            while trainer._last is not None and self.step >= trainer._last and not leaving():
                trainer._stands = self.step
                time.sleep(0.05)
            trainer._stands = None
            return advance(self)

        trainer.advance = slower
    return trainer


def leaving():
    """Whether the page's server has been told to exit, as "Reload UI" does."""
    return getattr(getattr(shared.demo, "server", None), "should_exit", False)


def slow(seconds: float):
    """Every training step takes so much longer: what happens meanwhile can then be looked at."""
    paced()._slower = seconds


def hold(step: int | None = None):
    """A run stands still after this step, until another one is named, or none."""
    paced()._last = step


def stands():
    """After which step a run stands still; None where none does."""
    return {"step": paced()._stands}


def reload():
    """What the button "Reload UI" calls."""
    shared.state.request_restart()


def embedding(name: str):
    """Has an embedding of this name; an empty name takes it away again."""
    if "backend" in sys.modules:
        known = shared.sd_model.text_processing_engine_l.embeddings.word_embeddings
    else:
        known = importlib.import_module(
            "modules.sd_hijack"
        ).model_hijack.embedding_db.word_embeddings
    if name:
        known[name] = None
    else:
        known.clear()
    return {"name": name}


def host():
    """Whether the loaded model can be borrowed, and otherwise what a user is told."""
    webui = importlib.import_module("unziplora.extension")
    try:
        return {"host": type(webui.open_host()).__name__, "refused": ""}
    except Exception as error:
        return {"host": "", "refused": str(error)}


def sheet(name: str, prompt: str, seed: int):
    """The checksum of an image as sheets have them: with both LoRAs of a pair."""
    service = importlib.import_module("unziplora.extension").service()
    pair = service.pair(name)
    (image,) = service.draw([prompt], [(pair.content, 1.0), (pair.style, 0.5)], seed)
    return {"sha256": hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()}


def hypertile(enable: bool):
    """Its option, and how many attentions it has left wrapped."""
    shared.opts.data["hypertile_enable_unet"] = enable
    return {"wrapped": traits()["unet"]["wrapped"]}


def leave(kind: str, place: str):
    """What an extension would leave on the UNet: a forward, or a hook, at modules of this name."""
    unet = parts()["unet"]
    for name, module in unet.named_modules():
        if name.endswith(place) and kind == "forward":
            module.forward = thrice(module.forward)
        elif name.endswith(place) and kind == "hook":
            module.register_forward_hook(lambda module, args, output: output * 3)
        elif name.endswith(place):
            module.__dict__.pop("forward", None)
            module._forward_hooks.clear()
    return {"wrapped": traits()["unet"]["wrapped"], "hooks": traits()["unet"]["hooks"]}


def thrice(forward):
    return lambda *args, **kwargs: forward(*args, **kwargs) * 3


sampled = {}


def note_noise(params):
    """The largest sigma since it was last asked for."""
    sampled["sigma"] = max(sampled.get("sigma", 0.0), float(params.sigma.max()))


def schedule():
    """The last alphas_cumprod, of the last generation and of a run that would begin now."""
    host = importlib.import_module("unziplora.extension").open_host()
    return {
        "sampling": 1 / (1 + sampled.pop("sigma") ** 2),
        "training": float(host.alphas_cumprod[-1]),
        "prediction_type": host.prediction_type,
    }


def packages():
    return sorted(f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions())


def other():
    """What else a generation reads: the checkpoint, and LoRAs and hypernetworks in use."""
    networks = sys.modules.get("networks")
    return {
        "checkpoint": shared.sd_model.sd_checkpoint_info.name,
        "loras": [net.name for net in getattr(networks, "loaded_networks", [])],
        "job": shared.state.job,
        "job_count": shared.state.job_count,
        "option": shared.opts.sd_model_checkpoint,
        "patched": sd_models.unload_model_weights.__module__,
    }


listening = []  # the audit's block, while it lasts


def listen():
    """From now on everything that this process opens and connects to is written down."""
    block = audit_events().audited()
    listening.append((block, block.__enter__()))
    return {"listening": True}


def heard():
    """What was opened outside the WebUI's folders, Python's and the extension's; and every
    connection, since `listen`."""
    block, events = listening.pop()
    block.__exit__(None, None, None)
    audit, paths = audit_events(), importlib.import_module("modules.paths_internal")
    own = [
        Path(paths.data_path),
        Path(paths.script_path),
        ROOT / "unziplora",
        ROOT / "javascript",
        Path(os.environ["GRADIO_TEMP_DIR"]),
    ]
    return {
        "opened": audit.opened_outside(events, [*own, *audit.pythons_own()]),
        "connected": audit.connected(events),
        "all": len(events),
    }


def audit_events():
    """The project's own module of that name, which the WebUI's Python does not find by itself."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    return importlib.import_module("benchmarks.reliability.audit_events")


def routes(_, app):
    for function in (
        weights, traits, matched, packages, other, embedding, host, sheet, schedule, heard, stands,
    ):  # fmt: skip
        app.add_api_route(f"/test/{function.__name__}", function, methods=["GET"])
    for function in (fail, slow, hold, reload, hypertile, leave, listen):
        app.add_api_route(f"/test/{function.__name__}", function, methods=["POST"])


if "backend" in sys.modules:
    tell_forge()
script_callbacks.on_cfg_denoiser(note_noise)
script_callbacks.on_app_started(routes)
