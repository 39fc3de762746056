"""Tasks that pack, push, unpack, fine-tune, generate, judge, decide and promote."""
