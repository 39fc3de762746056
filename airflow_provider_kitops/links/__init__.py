"""Where a browser finds what a task made."""
