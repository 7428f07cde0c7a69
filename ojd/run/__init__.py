"""The host side of a run: the loop, its files, its clock."""
