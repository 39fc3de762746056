"""Which of two contestants answers better, as seen by a language model that has first shown that it can tell."""
