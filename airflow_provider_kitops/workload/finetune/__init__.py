"""Reference program: LoRA and QLoRA fine-tuning of causal language models and sequence classifiers."""
