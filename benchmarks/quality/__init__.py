"""The judge: UnZipLoRA, its ablations and two baselines on images of which the truth is known."""
