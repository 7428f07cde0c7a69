"""The live view of a run: the running overlay and charts, for browsers."""
