"""Where in a network invariance is lost: layer by layer."""
