"""Tasks that wait for a tag."""
