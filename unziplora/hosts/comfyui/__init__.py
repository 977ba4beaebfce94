"""ComfyUI as a host. Lines in comments are those of ComfyUI 0.8.0.

Nothing of ComfyUI is imported before a method needs it, so that the modules here load anywhere.
"""
