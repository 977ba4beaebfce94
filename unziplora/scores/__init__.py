"""How near images are to the one trained on, by subject and by style, as in the paper's Table 2."""
