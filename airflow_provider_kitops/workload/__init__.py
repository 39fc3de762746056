"""Programs that read ModelKits and write one: the specification, the three steps, and two reference programs."""
