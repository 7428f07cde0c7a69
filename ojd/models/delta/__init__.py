"""Students that compute what changed: Delta Distillation, Skip-Convolutions."""
