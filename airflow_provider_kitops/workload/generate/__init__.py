"""Reference program: one answer for each item, by a fine-tuned model or an untuned base."""
