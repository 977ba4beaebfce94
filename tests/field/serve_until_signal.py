"""Serves the app on the documented host for test_attack_signals.py: `… FOLDER PORT`."""

import sys
from pathlib import Path

import torch

from tests.conftest import ROOT, python_blocks
from unziplora.app.server import make_app
from unziplora.app.serving import serve

torch.set_num_threads(1)
names: dict = {}
exec(python_blocks(ROOT / "docs" / "extending.md")[0], names)
folder = Path(sys.argv[1])
app = make_app(lambda: names["MyHost"](names["small_unet"]()), folder / "out")
service = app.state.service
settings = {"subject": "tree", "style": "ink", "steps": 100_000, "rank": 2, "name": "fox"}
service.start(folder / "image.png", {**settings, "save_minutes": 60})
serve(app, "127.0.0.1", 0, service.close)
