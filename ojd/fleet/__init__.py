"""Many streams and what they share: run here, or planned for elsewhere."""
