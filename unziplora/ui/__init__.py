"""The page: one layout for every host and for gradio 3.41, 4.40 and 6."""
