"""Content by digest: references, the local layout, registries, and copying between them."""
