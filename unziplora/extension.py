"""The extension in a WebUI: its tab, its routes, its settings. The page is ui/, the model hosts/.

A module stays loaded when the WebUI's page is reloaded, so the service, and a run in it, do too.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unziplora.hosts.webui import detect, lora_memory, options, txt2img
from unziplora.hosts.webui.reload import ReloadGate
from unziplora.hosts.webui.shutdown import SaveAtExit
from unziplora.hosts.webui.txt2img import webui

if TYPE_CHECKING:
    from unziplora.app.service import Service
    from unziplora.host import Host, ModelIdentity
    from unziplora.training.model_traits import ModelInfo

TITLE = "UnZipLoRA"
_log = logging.getLogger(__name__)
_reload = ReloadGate()


def register() -> None:
    """Called by the entry script. Imports nothing heavy: the page is built when it is asked for."""
    callbacks = webui("script_callbacks")
    callbacks.on_ui_tabs(tab)
    callbacks.on_app_started(routes)
    callbacks.on_before_reload(hold)
    callbacks.on_ui_settings(options.add_to_settings_page)
    SaveAtExit(close).install()


def tab() -> list[tuple[Any, str, str]]:
    """The tab, or one sentence in its place: never nothing, and never an error that takes the
    other extensions' tabs with it."""
    from unziplora.errors import UnZipLoRAError

    try:
        detect.detected()
        page = _page()
    except UnZipLoRAError as error:
        page = _sentence(str(error))
    except Exception as error:  # the border to the WebUI, which would show no tab at all
        _log.exception("UnZipLoRA: the tab could not be built")
        page = _sentence(
            f"The tab could not be built ({type(error).__name__}: {error}). Report it with what "
            "the WebUI's console says."
        )
    for block in page.blocks.values():
        # or the WebUI keeps each field's first value in its ui-config.json, and sets it again at
        # every start, over the options of ours that propose one (modules/ui_loadsave.py:50)
        block.do_not_save_to_config = True
    return [(page, TITLE, "unziplora")]


def _page() -> Any:
    from unziplora.ui.page import HostFeatures, build

    features = HostFeatures(
        # several of Forge's relatives have no interrogator
        suggest=suggest if _interrogates() else None,
        suggest_subject=suggest_subject if _interrogates() else None,
        preview_every=options.preview_every(),
        preview_source="() => unziploraPreviewSettings()",
        to_prompt="(text) => unziploraToPrompt(text)",
        images={
            f"From {tab}": f"async () => [await unziploraImage('{tab}')]"
            for tab in ("txt2img", "img2img")
        },
    )
    return build(service(), features)


def _sentence(text: str) -> Any:
    import gradio as gr

    with gr.Blocks(analytics_enabled=False) as page:
        gr.Markdown(text)
    return page


@lru_cache(maxsize=1)
def service() -> Service:
    from unziplora.app.service import Service
    from unziplora.hosts.webui import progress
    from unziplora.images import font

    # the WebUI's own; it is imported before any extension
    roboto = getattr(sys.modules.get("modules.paths_internal"), "roboto_ttf_file", None)
    if roboto is not None:
        font.FILES.insert(0, str(roboto))
    service = Service(
        open_host,
        options.pair_folder,
        saved=refresh_loras,
        draw=draw,
        model_info=model_info,
        defaults=options.previews,
        program=about,
        checkpoint=checkpoint,
        publish_to=options.publish_folder,
        runs_at=options.runs_folder,
    )
    service.listed = options.lora_folder
    progress.follow(service.jobs, _reload)
    progress.follow_merges(service.merges, _reload)
    return service


def close() -> None:
    """Called before the WebUI ends: what runs saves its state."""
    if service.cache_info().currsize:
        service().close()


def open_host() -> Host:
    """The host of this WebUI, with the checkpoint that is chosen. Raises InvalidInput where there
    is none, or it cannot be trained on."""
    host_class = detect.detected().host_class()
    return host_class(host_class.chosen_model(), options.prediction_type())


def model_info() -> ModelInfo | None:
    """What the page's estimate needs of the model, where it is loaded; waits for nothing. Raises
    InvalidInput where it cannot be trained on."""
    from unziplora.training.model_traits import ModelInfo

    host = loaded_host()
    if host is None:
        return None
    freed = getattr(host, "freed", 0)
    return ModelInfo(host.unet, host.device, host.defaults, freed)


def checkpoint() -> ModelIdentity | None:
    """Of the same model."""
    host = loaded_host()
    return None if host is None else host.model


def loaded_host() -> Host | None:
    """The host of the model that is loaded; None where none is yet. Raises InvalidInput."""
    host_class = detect.detected().host_class()
    model = host_class.loaded_model()
    return None if model is None else host_class(model, options.prediction_type())


def about() -> dict[str, str]:
    """For reports: which WebUI, and the options that are switched on (no values: they name files).
    Its version is a tag or commit of its own folder (modules/launch_utils.py, git_tag)."""
    found = detect.detect()
    version = getattr(webui("launch_utils"), "git_tag", lambda: "unknown")
    arguments = getattr(getattr(webui("shared"), "cmd_opts", None), "__dict__", {})
    return {
        "program": found.name if found else "unknown",
        "its version": str(version()),
        "options": " ".join(sorted(name for name, value in arguments.items() if value is True)),
    }


def draw(prompts: Sequence[str], loras: Sequence[tuple[Path, float]], seed: int) -> Any:
    """For sheets, at the size that the loaded model was trained on."""
    side = open_host().defaults.resolution
    return txt2img.draw(prompts, loras, seed, side, options.lora_folder())


def suggest(image: Any) -> str:
    """Style words for an image by the WebUI's interrogator, while nothing else uses its model.
    Raises UnZipLoRAError."""
    from unziplora.hosts.webui.interrogator import style_words

    with service().jobs.reserve_model():
        return style_words(image)


def suggest_subject(image: Any) -> str:
    """The same of what it shows, in a word."""
    from unziplora.hosts.webui.interrogator import subject_word

    with service().jobs.reserve_model():
        return subject_word(image)


def _interrogates() -> bool:
    return bool(getattr(webui("shared"), "interrogator", None))


def refresh_loras(_: Mapping[str, Path]) -> None:
    """After files were made, replaced or removed."""
    lora_memory.refresh()


def hold() -> None:
    """Called before the WebUI loads its page and its scripts again."""
    if detect.detect() is not None:
        _reload.begin(lambda: service().jobs.current is not None or service().merges.running)


def routes(_: Any, app: Any) -> None:
    """The API, where the WebUI has one and a host is known."""
    _reload.end()
    # without a page it has its API in any case (webui.py:159)
    api = options.argument("api") or options.argument("nowebui")
    if not api or detect.detect() is None:
        return
    from unziplora.app.http_api import add_routes

    add_routes(app, service(), allow)


def allow(request: Any) -> None:
    """Whichever credentials the WebUI asks for: --api-auth's, or a login to its page. It guards its
    own routes only. Raises HTTPException(401)."""
    from unziplora.app.auth import require_user, users_in, users_of

    users = users_of(options.argument("api_auth"))
    page_users = users_of(options.argument("gradio_auth"))
    page_users += users_in(options.argument("gradio_auth_path"))
    tokens = getattr(request.app, "tokens", None) or {}
    if page_users and not users and any(value in tokens for value in request.cookies.values()):
        return
    require_user(request, users or page_users)
