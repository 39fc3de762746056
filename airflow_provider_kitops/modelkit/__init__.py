"""ModelKits: a Kitfile, its layers as tar streams, manifest and config; packing, unpacking, listing, comparing."""
