"""ZipLoRA: two finished LoRAs as one, with mergers that are learned on the model."""
