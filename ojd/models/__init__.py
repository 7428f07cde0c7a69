"""Student networks, in Flax Linen."""
