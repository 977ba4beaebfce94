"""A real WebUI as a process, with this extension in its extensions folder and a data folder of its
own, so that its checkout stays as it is.

    UNZIPLORA_A1111=/path/of/stable-diffusion-webui  UNZIPLORA_A1111_PYTHON=/path/of/its/python
    UNZIPLORA_FORGE=/path/of/...-webui-forge         UNZIPLORA_FORGE_PYTHON=/path/of/its/python
    UNZIPLORA_NEO=/path/of/...-forge-neo             UNZIPLORA_NEO_PYTHON=/path/of/its/python
    UNZIPLORA_REFORGE=/path/of/...-webui-reForge     UNZIPLORA_REFORGE_PYTHON=/path/of/its/python
    UNZIPLORA_CLASSIC=/path/of/...-forge-classic     UNZIPLORA_CLASSIC_PYTHON=/path/of/its/python
    UNZIPLORA_ERSATZ=/path/of/ersatzForge            UNZIPLORA_ERSATZ_PYTHON=/path/of/its/python
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.hosts.checkpoints import describe
from tests.waiting import until

ROOT = Path(__file__).parents[2]
HELPER = Path(__file__).parent / "helper"
API = "/unziplora/v1"
ENDED = ("completed", "stopped", "failed", "cancelled")

FLAGS = {
    "a1111": ["--skip-torch-cuda-test", "--use-cpu", "all", "--no-half", "--precision", "full",
              "--do-not-download-clip"],
    "forge": ["--skip-torch-cuda-test", "--always-cpu"],
    "neo": ["--skip-torch-cuda-test", "--cpu"],
    "reforge": ["--skip-torch-cuda-test", "--always-cpu"],
    "classic": ["--skip-torch-cuda-test", "--always-cpu"],
    "ersatz": ["--skip-torch-cuda-test", "--always-cpu"],
}  # fmt: skip
KINDS = tuple(FLAGS)
COMMON = ["--skip-prepare-environment", "--skip-python-version-check", "--skip-version-check",
          "--server-name", "127.0.0.1"]  # fmt: skip
NO_DOWNLOAD = "--no-download-sd-model"  # Neo and ersatzForge never do, and know no such flag
# "Approx NN", the default, downloads a model, and without one every txt2img fails
# (modules/processing.py:924)
OPTIONS = {"show_progress_type": "Approx cheap", "live_previews_enable": False,
           "samples_save": False, "grid_save": False}  # fmt: skip
# what Forge Neo writes into its config.json; without it, it waits for a key (launch_utils.py:571)
NEO_OPTIONS = {"VERSION_UID": "PY313", "show_progress_type": "RGB"}


def place(kind: str) -> tuple[Path, Path]:
    """Checkout and Python of a WebUI; skips the test where there is none."""
    import pytest

    name = f"UNZIPLORA_{kind.upper()}"
    checkout, python = os.environ.get(name), os.environ.get(f"{name}_PYTHON")
    if not checkout or not python:
        pytest.skip(f"There is no {kind} here: {name} and {name}_PYTHON do not say where.")
    return Path(checkout), Path(python)


class WebUI:
    """kind: one of KINDS; data: an empty folder; checkpoints: copied into it, the first is
    loaded. Use it as a context manager."""

    def __init__(
        self,
        kind: str,
        data: Path,
        checkpoints: Sequence[Path],
        flags: Sequence[str] = ("--api",),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind, self.data = kind, data
        self.checkout, self.python = place(kind)
        self.loras = data / "models" / "Lora"
        self.runs = data / "models" / ".unziplora"
        self.log = data / "console.txt"
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._flags = [*COMMON, *FLAGS[kind], "--data-dir", str(data), "--port", str(self._port),
                       *flags]  # fmt: skip
        if NO_DOWNLOAD in (self.checkout / "modules" / "cmd_args.py").read_text("utf-8"):
            self._flags += [NO_DOWNLOAD]
        if kind in ("forge", "neo", "ersatz"):  # they serve the files below their data folder only
            self._flags += ["--gradio-allowed-path", str(self.checkout)]
        self._prepare(checkpoints, options or {})
        # a server that is kept busy drops connections that are kept alive
        fresh = httpx.Limits(max_keepalive_connections=0)
        self.client = httpx.Client(base_url=self.url, timeout=None, limits=fresh)
        self._process: subprocess.Popen[bytes] | None = None

    def _prepare(self, checkpoints: Sequence[Path], options: Mapping[str, Any]) -> None:
        models = self.data / "models" / "Stable-diffusion"
        # Forge Neo puts images that are not saved into tmp, and does not make it
        # (modules/shared_options.py:73)
        others = (self.data / name for name in ("extensions", "embeddings", "tmp"))
        for folder in (models, self.loras, *others):
            folder.mkdir(parents=True, exist_ok=True)
        for checkpoint in checkpoints:
            copy = models / checkpoint.name
            shutil.copyfile(checkpoint, copy)
            describe(copy, self.data / "configs")
        (self.data / "extensions" / "unziplora").symlink_to(ROOT)
        (self.data / "extensions" / "test-helper").symlink_to(HELPER)
        own = NEO_OPTIONS if self.kind == "neo" else {}
        chosen = {"sd_model_checkpoint": checkpoints[0].name, **OPTIONS, **own, **options}
        (self.data / "config.json").write_text(json.dumps(chosen), "utf-8")

    def __enter__(self) -> WebUI:
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "GRADIO_ANALYTICS_ENABLED": "False",
            "UNZIPLORA_TEST_CONFIGS": str(self.data / "configs"),
            "GRADIO_TEMP_DIR": str(self.data / "uploads"),
            "COLUMNS": "400",  # Forge Neo breaks its lines at the width of a window
            "PYTHONPATH": "",  # the extension finds itself
            "no_proxy": "127.0.0.1,localhost",
        }
        with self.log.open("wb") as console:
            self._process = subprocess.Popen(
                [str(self.python), "-u", str(self.checkout / "launch.py"), *self._flags],
                cwd=self.checkout, env=environment, stdout=console, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        try:
            self.wait(self.up)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def interrupt(self) -> None:
        """Ctrl-C in its window; returns when it has ended."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait()

    def up(self, times: int = 1) -> bool:
        """Whether its page has started so many times. Nothing is asked of it before: a request in
        that moment keeps Automatic1111 from adding its API (webui.py:112)."""
        assert self._process is not None
        assert self._process.poll() is None, self.console()[-3000:]
        return self.console().count("Startup time: ") >= times

    def console(self) -> str:
        """What it has written there, without its colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text("utf-8", errors="replace"))

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Until the condition's result is true, or the WebUI has ended, which fails."""

        def met() -> Any:
            assert self._process is not None
            return condition() or self._process.poll() is not None

        result = until(met, pause=0.2)
        assert self._process is not None
        assert self._process.poll() is None, self.console()[-3000:]
        return result

    def get(self, path: str, **query: Any) -> Any:
        answer = self.client.get(path, params=query)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        answer = self.client.post(path, json=body, params=query)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def draw(self, prompt: str, **more: Any) -> Image.Image:
        """By txt2img of the WebUI's own API, always with the same seed and settings."""
        body = {"prompt": prompt, "seed": 7, "steps": 3, "width": 128, "height": 128,
                "sampler_name": "Euler", "cfg_scale": 4, **more}  # fmt: skip
        answer = self.post("/sdapi/v1/txt2img", body)
        return Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))).convert("RGB")

    def start(self, name: str, image: Path, **settings: Any) -> str:
        """Starts a run; its id."""
        body = {"image": base64.b64encode(image.read_bytes()).decode(), "name": name,
                "subject": "cat", "style": "crayon drawing", "steps": 6, "rank": 4,
                "lr": 1e-2, "preview_every": 0, **settings}  # fmt: skip
        return str(self.post(f"{API}/runs", body)["id"])

    def run(self, job: str) -> Any:
        return self.get(f"{API}/runs/{job}", since=0)

    def command(self, job: str, command: str) -> None:
        self.post(f"{API}/runs/{job}/commands", {"command": command})

    def hold(self, step: int | None = None) -> None:
        """Runs stand still after this step, until another one is named, or none: what a test does
        meanwhile comes between two steps, however long it takes."""
        self.post("/test/hold", **({} if step is None else {"step": step}))

    def stands(self, job: str, step: int) -> None:
        """Waits until a run stands still after this step."""
        self.at_step(job, step)
        self.wait(lambda: self.get("/test/stands")["step"] == step)

    def at_step(self, job: str, step: int) -> None:
        """Waits until a run has done so many steps; fails where it has ended before."""

        def there() -> Any:
            run = self.run(job)
            return run if run["step"] >= step or run["state"] in ENDED else None

        run = self.wait(there)
        assert run["step"] >= step, run

    def ended(self, job: str) -> Any:
        """The run, once it has ended or pauses."""
        self.wait(lambda: self.run(job)["state"] in (*ENDED, "paused"))
        return self.run(job)

    def train(self, name: str, image: Path, **settings: Any) -> Any:
        return self.ended(self.start(name, image, **settings))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
