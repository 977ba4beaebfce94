"""The nodes for ComfyUI. `comfyui/` beside this package is what ComfyUI loads; it imports these.

`nodes.py` is the list of nodes. They train through the same host contract as every other program
(hosts/comfyui/) and keep their runs in models/.unziplora, where ComfyUI lists no files.
"""
