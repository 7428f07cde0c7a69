"""File formats that more than one room reads."""
