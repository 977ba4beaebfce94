"""The world on which the miniature SDXL is trained and the method is judged."""
