"""The emoji world: the same things drawn by several vendors, in many styles, truth known."""
