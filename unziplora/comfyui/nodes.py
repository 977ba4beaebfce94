"""The list of nodes, in both forms in which ComfyUI asks for it."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import ComfyExtension

from unziplora.comfyui.pairs import CombinePairs, LoadPair, SavePair
from unziplora.comfyui.unzip import UnzipImage

NODES: list[Any] = [UnzipImage, LoadPair, CombinePairs, SavePair]
_SCHEMAS = {node: node.GET_SCHEMA() for node in NODES}
NODE_CLASS_MAPPINGS = {schema.node_id: node for node, schema in _SCHEMAS.items()}
NODE_DISPLAY_NAME_MAPPINGS = {schema.node_id: schema.display_name for schema in _SCHEMAS.values()}


class UnZipLoRAExtension(ComfyExtension):  # type: ignore[misc]
    async def get_node_list(self) -> list[Any]:
        return list(NODES)


async def comfy_entrypoint() -> UnZipLoRAExtension:
    """What ComfyUI calls for nodes of the V3 schema."""
    return UnZipLoRAExtension()
