"""Training: thin wrappers over TRL, each run as its own process."""
