"""The judge: UnZipLoRA, its ablations and two baselines on pictures of which the truth is known."""
