"""Inspiration Tree (Vinker et al. 2023): two embeddings of one image, which the paper compares
with."""
