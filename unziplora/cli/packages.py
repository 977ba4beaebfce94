"""What a command needs beyond torch: checked before minutes are spent."""

from __future__ import annotations

import os

from unziplora.errors import InvalidInput


def check_packages() -> None:
    """What the standalone host imports, here and in processes that begin later. Raises
    InvalidInput."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns of image processors
    try:
        import diffusers  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise InvalidInput(
            f"The package {error.name} is missing, which is needed outside a WebUI. "
            "Install it with: pip install 'unziplora[standalone]'"
        ) from error
