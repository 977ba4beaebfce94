"""A real ComfyUI as a process, with our nodes in its custom_nodes and folders of its own, so that
its checkout stays as it is.

    UNZIPLORA_COMFYUI=/path/of/ComfyUI  UNZIPLORA_COMFYUI_PYTHON=/path/of/its/python
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.hosts.checkpoints import describe, shape_of
from tests.waiting import until

ROOT = Path(__file__).parents[2]
HELPER = Path(__file__).parent / "helper"
VARIABLE = "UNZIPLORA_COMFYUI"
# fp32 text encoders: the command line's on a CPU
FLAGS = ["--cpu", "--fp32-text-enc", "--disable-api-nodes", "--disable-auto-launch",
         "--database-url", "sqlite:///:memory:"]  # fmt: skip
Workflow = dict[str, Any]


def place() -> tuple[Path, Path]:
    """Checkout and Python of ComfyUI; skips the test where there is none."""
    import pytest

    checkout, python = os.environ.get(VARIABLE), os.environ.get(f"{VARIABLE}_PYTHON")
    if not checkout or not python:
        pytest.skip(f"There is no ComfyUI here: {VARIABLE} and {VARIABLE}_PYTHON do not say where.")
    return Path(checkout), Path(python)


class ComfyUI:
    """data: an empty folder; checkpoints: copied into it. Use it as a context manager."""

    def __init__(self, data: Path, checkpoints: Sequence[Path], flags: Sequence[str] = ()) -> None:
        self.checkout, self.python = place()
        self.data, self.loras = data, data / "models" / "loras"
        self.runs = data / "models" / ".unziplora"
        self.log = data / "console.txt"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._flags = [*FLAGS, "--base-directory", str(data), "--port", str(self.port), *flags]
        self._prepare(checkpoints)
        self.client = httpx.Client(base_url=self.url, timeout=None)
        self._process: subprocess.Popen[bytes] | None = None

    def _prepare(self, checkpoints: Sequence[Path]) -> None:
        models = self.data / "models" / "checkpoints"
        for folder in (models, self.loras, self.data / "input", self.data / "custom_nodes"):
            folder.mkdir(parents=True, exist_ok=True)
        for checkpoint in checkpoints:
            if (models / checkpoint.name).exists():
                continue
            copy = Path(shutil.copy(checkpoint, models))
            describe(copy, self.data / "configs")
            scheduler = self.data / "configs" / copy.stem / "scheduler" / "config.json"
            kind = "v_prediction" if shape_of(copy).v_prediction else "epsilon"
            scheduler.write_text(json.dumps({"prediction_type": kind}), "utf-8")
        for name, target in (("unziplora", ROOT / "comfyui"), ("test-helper", HELPER)):
            link = self.data / "custom_nodes" / name
            if not link.is_symlink():
                link.symlink_to(target)

    def __enter__(self) -> ComfyUI:
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "UNZIPLORA_TEST_CONFIGS": str(self.data / "configs"),
            "PYTHONPATH": "",  # the nodes find themselves
            "no_proxy": "127.0.0.1,localhost",
        }
        with self.log.open("wb") as console:
            self._process = subprocess.Popen(
                [str(self.python), "-u", str(self.checkout / "main.py"), *self._flags],
                cwd=self.checkout, env=environment, stdout=console, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        try:
            until(self._up)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.console()[-3000:]
        return "To see the GUI go to" in self.console()

    def console(self) -> str:
        return self.log.read_text("utf-8", errors="replace")

    def get(self, path: str) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.text else None

    def place_image(self, source: Path) -> str:
        """Where Load Image finds it; its name there."""
        shutil.copy(source, self.data / "input")
        return source.name

    def queue(self, workflow: Workflow) -> str:
        """The id of what is queued."""
        body = {"prompt": workflow, "client_id": uuid.uuid4().hex}
        return str(self.post("/prompt", body)["prompt_id"])

    def ended(self, prompt: str) -> dict[str, Any]:
        """What became of it: status, and what the nodes show."""
        until(lambda: prompt in self.get(f"/history/{prompt}"))
        found: dict[str, Any] = self.get(f"/history/{prompt}")[prompt]
        return found

    def run(self, workflow: Workflow) -> dict[str, Any]:
        """Raises AssertionError with ComfyUI's own words where it failed."""
        ended = self.ended(self.queue(workflow))
        assert ended["status"]["status_str"] == "success", error_of(ended) or self.console()[-3000:]
        return ended


def error_of(ended: Mapping[str, Any]) -> str:
    """What a node of a workflow raised; empty where none did."""
    for kind, said in ended["status"]["messages"]:
        if kind == "execution_error":
            return str(said["exception_message"])
    return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
