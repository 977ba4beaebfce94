"""python -m benchmarks.startup [--json FILE] [--trials 7]

What the extension adds to a WebUI's start: importing its entry script where torch and gradio are
loaded already, and building its tab. Each trial is a fresh Python. The WebUI's own modules are
stood in for by ones whose every function does nothing, so that no WebUI is needed. Seconds are
processor time, so that other programs are not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.results import described, write

ROOT = Path(__file__).parent.parent
BAR = 0.15  # seconds

TRIAL = """
import importlib.machinery, json, sys, time, types
import torch, gradio, fastapi, safetensors.torch, numpy, PIL.Image

class StandIn(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "modules":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return StandIn(spec.name)

    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Finder())
import modules.shared
modules.shared.opts = types.SimpleNamespace()
modules.shared.cmd_opts = types.SimpleNamespace(lora_dir="models/Lora", api=False)

def entry():
    import runpy
    runpy.run_path(sys.argv[1])

def tab():
    from unziplora import extension
    with gradio.Blocks():
        extension.tab()

def seconds(work):
    began = time.process_time()
    work()
    return time.process_time() - began

print(json.dumps({"entry": seconds(entry), "tab": seconds(tab)}))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What the extension adds to a WebUI's start.")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--trials", type=int, default=7)
    args = parser.parse_args(arguments)
    print(described())
    trials = [trial() for _ in range(args.trials)]
    result = {
        "entry_seconds": round(median(found["entry"] for found in trials), 3),
        "tab_seconds": round(median(found["tab"] for found in trials), 3),
        "trials": [{key: round(value, 3) for key, value in found.items()} for found in trials],
    }
    print(f"importing the entry script {result['entry_seconds']} s   (at most {BAR} wanted)")
    print(f"building the tab           {result['tab_seconds']} s")
    write(args.json, result)
    return 0


def trial() -> dict[str, float]:
    """Seconds of the entry script's import, and of the tab, in a Python of its own."""
    script = ROOT / "scripts" / "unziplora_tab.py"
    done = subprocess.run(
        [sys.executable, "-c", TRIAL, str(script)], check=True, capture_output=True, text=True
    )
    times: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return times


if __name__ == "__main__":
    raise SystemExit(main())
