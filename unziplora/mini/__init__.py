"""The miniature: a small SDXL that the project trained itself (mini_world/), and its image.

It draws eighteen kinds of things in fourteen styles at 128 x 128 pixels; CARD.md says how it was
made and what it cannot do.
"""

from pathlib import Path

MODEL = Path(__file__).parent / "mini.safetensors"  # sgm's layout; its config is mini.yaml

# what the demo trains on: an individual and a style that the miniature has never seen
IMAGE = Path(__file__).parent / "image.png"
SUBJECT, STYLE = "mushroom", "thermal photo"
# what the demo tries the style on: things that the miniature draws plainly
OBJECTS = ("a house", "a car", "a penguin", "a sailboat")
