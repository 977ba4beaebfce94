"""The WebUI runs this before it starts. It installs nothing: a WebUI has all that is needed."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 (this is where an older one would be met)
    print("UnZipLoRA needs Python 3.10 or newer. Update the WebUI's Python.")
