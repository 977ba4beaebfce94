"""UnZipLoRA: from one picture, a content LoRA and a style LoRA."""
