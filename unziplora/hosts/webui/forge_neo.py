"""Forge Neo (2.26) as a host. What it does not share with Forge is memory."""

from __future__ import annotations

from typing import Any

from unziplora.hosts.webui.forge import ForgeHost


class ForgeNeoHost(ForgeHost):
    """An SDXL checkpoint in Forge Neo: `Host` of host.py."""

    def _load(self, patcher: Any) -> None:
        """As a whole: by itself it loads as many layers as leave room for an image
        (backend/memory_management.py:616)."""
        self._memory().load_models_gpu([patcher], force_full_load=True)
