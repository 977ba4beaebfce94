"""The short help at the top of the Train tab."""

from __future__ import annotations

_ANSWERS = (
    (
        "Which image?",
        "One clear subject, not cut off, in a style that shows all over. Edges and colours matter "
        "more than size: 1024 pixels are enough.",
    ),
    (
        "Which words?",
        "Subject: the plain noun, <i>cat</i> and not <i>my fluffy cat</i>. Style: two or three "
        "words, <i>watercolor painting</i>. The model should know both; what is special about "
        "them is what gets trained.",
    ),
    (
        "How do I use the result?",
        "Each LoRA alone or both together, with the trigger words that Results puts into the "
        "prompt. Too strong: lower its weight, 0.6 to 0.8. Too weak: <i>Train more</i>, or raise "
        "the learning rate.",
    ),
    (
        "It does not fit into memory.",
        "Choose the preset <i>Low memory</i>, or a smaller resolution under Advanced. The line "
        "above the image says what a run needs and what is free.",
    ),
    (
        "Can I stop?",
        "At any time. <i>Stop and save</i> writes both LoRAs as they are; an unfinished run can "
        "be resumed later exactly where it was, also after a crash.",
    ),
)

HELP = (
    '<details class="uz-help"><summary>Help</summary><dl>'
    + "".join(f"<dt>{question}</dt><dd>{answer}</dd>" for question, answer in _ANSWERS)
    + "</dl></details>"
)
