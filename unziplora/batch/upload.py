"""Where a batch's files go: a folder, or an fsspec URL that finished pairs are copied to.

The local folder stays the truth: runs, states and pairs lie there, and what could not be copied is
copied when the batch is run again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from unziplora.batch.results import Result
from unziplora.errors import InvalidInput


class Destination:
    """out: a folder, or a URL such as s3://bucket/path. folder: the local one."""

    def __init__(self, out: str) -> None:
        self._url = out if "://" in out else None
        if self._url is None:
            self.folder = Path(out).expanduser().absolute()
            return
        self._files: Any
        self._files, self._root = _open(self._url)
        key = hashlib.sha256(self._url.encode()).hexdigest()[:8]
        self.folder = Path(f"batch-{key}").absolute()

    def deliver(self, result: Result) -> str:
        """Copies a finished pair where it should go; what is to be shown of the result."""
        text = f"{result.name}: {result.state}. {result.message}".rstrip()
        if self._url is None or result.state != "completed":
            return text
        try:
            for name in result.files:
                for path in (self.folder / name, (self.folder / name).with_suffix(".json")):
                    if path.is_file():
                        self._files.put_file(str(path), f"{self._root}/{path.name}")
        except Exception as error:  # any store's own errors
            return (
                f"{text} It could not be copied to {self._url} ({error}); it is in "
                f"{self.folder}. Run the batch again to copy it."
            )
        return f"{text} Copied to {self._url}."


def _open(url: str) -> tuple[Any, str]:
    try:
        import fsspec

        files, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise InvalidInput(
            f"The package {error.name or 'fsspec'} is missing, which --out {url} needs. Install "
            "it with: pip install 'unziplora[fsspec]' and your store's own package."
        ) from error
    except ValueError as error:
        raise InvalidInput(
            f"{url} is not a place that fsspec knows ({error}). Name another."
        ) from error
    return files, root.rstrip("/")
