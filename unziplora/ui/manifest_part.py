"""Many images on the Train tab: a list and its images, whose runs go into the queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from unziplora.app.manifest_upload import queue_manifest
from unziplora.app.service import Service
from unziplora.app.uploads import discard
from unziplora.errors import InvalidInput
from unziplora.ui.answers import message_from
from unziplora.ui.gradio_compat import file_input, plain_html, when

_ABOUT = (
    "A list, together with the images that it names: CSV with the first line "
    "<code>image,subject,style</code> (any setting may be a column), or JSON lines. Each line "
    "becomes a run in the queue."
)


def build(service: Service) -> None:
    """The answer is below its own button: the form's message is far above on a phone."""
    with gr.Accordion("Many images", open=False, elem_id="uz_many"):
        plain_html(f'<p class="uz-lead">{_ABOUT}</p>')
        files = file_input(
            label="List and images",
            file_count="multiple",
            elem_id="uz_manifest",
            height=160,
        )
        go = gr.Button("Queue all", elem_id="uz_queue_all")
        answer = plain_html(elem_id="uz_manifest_message")

    def queue(uploaded: Any) -> tuple[str, Any]:
        """uploaded: of gradio 3 file objects, of 4 paths, or None."""
        paths = [Path(getattr(one, "name", one)) for one in uploaded or []]

        def begin() -> str:
            if not paths:
                raise InvalidInput("No list is chosen. Choose a list together with its images.")
            return queue_manifest(service, paths)

        said = message_from(begin)
        for path in paths:
            discard(path)
        # what is still being uploaded stays in the field
        return said, None if paths else gr.update()

    when(go.click, queue, [files], [answer, files])
