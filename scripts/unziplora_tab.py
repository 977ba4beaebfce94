"""Entry point in a WebUI, which loads this file at start-up. Everything else is in `unziplora`."""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.append(ROOT)

from unziplora import extension  # noqa: E402

extension.register()
