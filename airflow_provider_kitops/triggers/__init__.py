"""What waits for a tag without holding a worker."""
