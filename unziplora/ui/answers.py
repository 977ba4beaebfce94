"""Answers of the page: what was done, or why not, in words that a user can act on."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from unziplora.errors import UnZipLoRAError
from unziplora.ui import run_html as render


def told(action: Callable[[], str]) -> str:
    """What an action says, as HTML. Where it fails, why; the trace of what nobody foresaw goes to
    the program's own output."""
    try:
        return render.message(action())
    except UnZipLoRAError as error:
        return render.message(str(error), error=True)
    except Exception as error:
        traceback.print_exc()
        return render.message(
            f"This should not have happened ({type(error).__name__}: {error}). "
            "Try again; the window or log of the program says more.",
            error=True,
        )
