"""The list of nodes, in both forms in which ComfyUI asks for it."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import ComfyExtension

from unziplora.comfyui.pairs import CombinePairs, LoadPair, SavePair
from unziplora.comfyui.unzip import UnzipImage

NODES = [UnzipImage, LoadPair, CombinePairs, SavePair]
NODE_CLASS_MAPPINGS = {node.GET_SCHEMA().node_id: node for node in NODES}
NODE_DISPLAY_NAME_MAPPINGS = {node.GET_SCHEMA().node_id: node.GET_SCHEMA().display_name for node in NODES}


class UnZipLoRAExtension(ComfyExtension):  # type: ignore[misc]
    async def get_node_list(self) -> list[Any]:
        return list(NODES)


async def comfy_entrypoint() -> UnZipLoRAExtension:
    """What ComfyUI calls for nodes of the V3 schema."""
    return UnZipLoRAExtension()
