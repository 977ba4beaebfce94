"""The extension in a WebUI: its tab, its routes, its settings. The page is ui/, the model hosts/.

A module stays loaded when the WebUI's page is reloaded, so the service, and a run in it, do too.
"""

from __future__ import annotations

import base64
import importlib
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unziplora.app.service import ModelInfo, Service
    from unziplora.host import Host

TITLE = "UnZipLoRA"
UNKNOWN = (
    "This WebUI is none of Automatic1111, Forge, reForge and forge-classic, and this version "
    "cannot train on its models. Use one of the four, or the command line."
)
FOLDER_OPTION, PREDICTION_OPTION = "unziplora_folder", "unziplora_prediction_type"
EVERY_OPTION, STEPS_OPTION = "unziplora_preview_every", "unziplora_preview_steps"
NEGATIVE_OPTION = "unziplora_preview_negative"


def register() -> None:
    """Called by the entry script. Imports nothing heavy: the page is built when it is asked for."""
    callbacks = _webui("script_callbacks")
    callbacks.on_ui_tabs(tab)
    callbacks.on_app_started(routes)
    callbacks.on_before_reload(hold)
    callbacks.on_ui_settings(settings)


def _webui(name: str) -> Any:
    return importlib.import_module(f"modules.{name}")


def tab() -> list[tuple[Any, str, str]]:
    """The tab, or in a WebUI that is not known one sentence instead of it."""
    from unziplora.ui.page import HostFeatures, build

    if _program() is None:
        import gradio as gr

        with gr.Blocks(analytics_enabled=False) as sentence:
            gr.Markdown(UNKNOWN)
        return [(sentence, TITLE, "unziplora")]
    features = HostFeatures(
        suggest=suggest if _webui("shared").interrogator else None,  # forge-classic has none
        preview_every=int(
            getattr(_webui("shared").opts, EVERY_OPTION, 100) or 0
        ),  # a cleared field
        to_prompt="(text) => unziploraToPrompt(text)",
        images={
            f"From {tab}": f"async () => [await unziploraImage('{tab}')]"
            for tab in ("txt2img", "img2img")
        },
    )
    return [(build(service(), features), TITLE, "unziplora")]


def _program() -> str | None:
    """Which WebUI this is, told by what it has loaded; None: one that is not known. reForge and
    forge-classic have sgm like Automatic1111, and ldm_patched for what they load models with."""
    forge, patched = "modules_forge" in sys.modules, "ldm_patched" in sys.modules
    if forge and "backend" in sys.modules:
        return "Forge"
    if forge and patched:
        version: str = importlib.import_module("modules_forge.forge_version").version
        return "forge-classic" if version == "classic" else _reforge(version)
    return "Automatic1111" if "sgm" in sys.modules and not patched else None


def _reforge(version: str) -> str | None:
    """Forge of before its version 2 has ldm_patched too, and 0 as its first number."""
    return "reForge" if version.startswith("1.") else None


@lru_cache(maxsize=1)
def service() -> Service:
    from unziplora.app.service import Service

    made = Service(
        open_host,
        folder,
        saved=refresh_loras,
        draw=draw,
        model_info=model_info,
        defaults=preview_settings,
        program=about,
    )
    made.jobs.on_event = _hearing(made)
    return made


def open_host() -> Host:
    """The host for this WebUI, told apart by what it has loaded. Raises InvalidInput where there is
    none, or the loaded model cannot be trained on."""
    from unziplora.errors import InvalidInput

    program = _program()
    if program == "Forge":
        from unziplora.hosts.webui.forge import ForgeHost, chosen_model

        return ForgeHost(chosen_model(), _prediction())
    if program == "Automatic1111":
        from unziplora.hosts.webui.a1111 import A1111Host

        return A1111Host(_prediction())
    from unziplora.hosts.webui.reforge import ClassicHost, ReForgeHost

    if program == "reForge":
        return ReForgeHost(_prediction())
    if program == "forge-classic":
        return ClassicHost(_prediction())
    raise InvalidInput(UNKNOWN)


def model_info() -> ModelInfo | None:
    """What the page's estimate needs of the model, where it is loaded; waits for nothing. Raises
    InvalidInput where it cannot be trained on."""
    host: Any
    if _program() == "Forge":
        from unziplora.hosts.webui.forge import ForgeHost, loaded_model

        model = loaded_model()
        if not hasattr(model, "forge_objects"):
            return None
        host = ForgeHost(model, _prediction())
    else:
        if _webui("sd_models").model_data.sd_model is None:  # shared.sd_model would load it
            return None
        host = open_host()
    return host.unet, host.device, host.defaults


def _prediction() -> Any:
    said = getattr(_webui("shared").opts, PREDICTION_OPTION, "automatic")
    return None if said == "automatic" else said


def about() -> dict[str, str]:
    """For reports: which WebUI, and the options that are switched on (no values: they name files).
    Its version is a tag or commit of its own folder (modules/launch_utils.py, git_tag)."""
    options = vars(_webui("shared").cmd_opts)
    return {
        "program": _program() or "unknown",
        "its version": str(_webui("launch_utils").git_tag()),
        "options": " ".join(sorted(name for name, value in options.items() if value is True)),
    }


def draw(prompts: Sequence[str], loras: Sequence[tuple[Path, float]], seed: int) -> Any:
    """For sheets, at the size that the loaded model was trained on."""
    from unziplora.hosts.webui import txt2img

    return txt2img.draw(prompts, loras, seed, open_host().defaults.resolution)


def suggest(image: Any) -> str:
    """Style words for an image by the WebUI's interrogator, while nothing else uses its model.
    Raises UnZipLoRAError."""
    from unziplora.hosts.webui.interrogator import style_words

    with service().jobs.reserve_model():
        return style_words(image)


def preview_settings() -> dict[str, Any]:
    """Of the settings page, for runs that say nothing else."""
    options = _webui("shared").opts
    return {
        "preview_steps": int(getattr(options, STEPS_OPTION, 20)),
        "preview_negative": getattr(options, NEGATIVE_OPTION, ""),
    }


def folder() -> Path:
    """Where pairs go: the option, or the WebUI's Lora folder with its own option honoured."""
    shared = _webui("shared")
    chosen = getattr(shared.opts, FOLDER_OPTION, "").strip()
    return Path(chosen or shared.cmd_opts.lora_dir).absolute()


def refresh_loras(files: Mapping[str, Path]) -> None:
    """So that a new file works in a prompt at once and its card shows."""
    networks = sys.modules.get("networks")
    if networks is not None:
        networks.list_available_networks()


def _hearing(made: Service) -> Any:
    """The WebUI's own progress bar shows the run, and its Interrupt stops and saves it."""
    from unziplora.training.events import Started, StepDone

    earlier = made.jobs.on_event

    def hear(event: Any) -> None:
        state = _webui("shared").state
        if isinstance(event, (Started, StepDone)):
            state.job_count, state.job_no = 1, 0
            state.sampling_steps, state.sampling_step = event.steps, event.step
        if isinstance(event, StepDone):
            state.textinfo = f"UnZipLoRA: step {event.step} of {event.steps}"
            if state.interrupted and not _reloading():
                job = made.jobs.current
                if job is not None:
                    made.jobs.send(job.id, "stop and save")
        earlier(event)
        _reload.pass_through()

    return hear


class _Reload:
    """Holds a run still between two steps while the WebUI loads its page anew: meanwhile its Lora
    extension takes its patches of Linear.forward off and puts them on again, and a step would
    call what is not there (extensions-builtin/Lora/scripts/lora_script.py:15)."""

    def __init__(self) -> None:
        self._over, self._still = threading.Event(), threading.Event()
        self._over.set()

    def begin(self, running: Callable[[], bool]) -> None:
        """Comes back when no step is under way."""
        self._over.clear()
        while running() and not self._still.wait(0.1):
            pass

    def end(self) -> None:
        self._over.set()

    def pass_through(self) -> None:
        """Called by the run after every step."""
        if not self._over.is_set():
            self._still.set()
            self._over.wait()
            self._still.clear()
            _webui("shared").state.interrupted = False


_reload = _Reload()


def _reloading() -> bool:
    """ "Reload UI" interrupts too (modules/shared_state.py:90), and then tells the page's server to
    exit, which is what tells the two apart."""
    for _ in range(10):
        if getattr(getattr(_webui("shared").demo, "server", None), "should_exit", False):
            return True
        time.sleep(0.1)
    return False


def hold() -> None:
    """Called before the WebUI loads its page and its scripts anew."""
    _reload.begin(lambda: service().jobs.current is not None)


def routes(_: Any, app: Any) -> None:
    """The API, where the WebUI has one."""
    _reload.end()
    if not _webui("shared").cmd_opts.api:
        return
    from unziplora.app.http_api import add_routes

    add_routes(app, service(), allow)


def allow(request: Any) -> None:
    """Whichever credentials the WebUI asks for: --api-auth's, or a login to its page."""
    from fastapi import HTTPException

    options = _webui("shared").cmd_opts
    users = _users(options.api_auth)
    page_users = _users(options.gradio_auth) + _users_in(options.gradio_auth_path)
    if not users and not page_users:
        return
    scheme, _, code = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(code, validate=True)
        except ValueError:
            given = b""
        if any(secrets.compare_digest(given, user.encode()) for user in users or page_users):
            return
    tokens = getattr(request.app, "tokens", None) or {}
    if page_users and not users and any(value in tokens for value in request.cookies.values()):
        return
    raise HTTPException(401, "Log in first.", {"WWW-Authenticate": "Basic"})


def _users(said: str | None) -> list[str]:
    return [user.strip() for user in (said or "").split(",") if user.strip()]


def _users_in(path: str | None) -> list[str]:
    if not path:
        return []
    lines = Path(path).read_text("utf-8").splitlines()
    return [user for line in lines for user in _users(line)]


def settings() -> None:
    """Our section of the WebUI's settings."""
    import gradio as gr

    shared = _webui("shared")
    section = ("unziplora", TITLE)
    choices = ["automatic", "epsilon", "v_prediction"]
    options = {
        FOLDER_OPTION: shared.OptionInfo(
            "", "Folder for pairs and runs (empty: the Lora folder)", section=section
        ),
        PREDICTION_OPTION: shared.OptionInfo(
            "automatic",
            "What the checkpoint predicts, if detection is wrong",
            gr.Radio,
            {"choices": choices},
            section=section,
        ),
        EVERY_OPTION: shared.OptionInfo(
            100,
            "Previews every so many steps, as the tab proposes (0: never; needs Reload UI)",
            gr.Number,
            {"precision": 0, "minimum": 0},
            section=section,
        ),
        STEPS_OPTION: shared.OptionInfo(
            20,
            "Sampling steps of a preview",
            gr.Slider,
            {"minimum": 1, "maximum": 100, "step": 1},
            section=section,
        ),
        NEGATIVE_OPTION: shared.OptionInfo("", "Negative prompt of previews", section=section),
    }
    for name, option in options.items():
        shared.opts.add_option(name, option)
