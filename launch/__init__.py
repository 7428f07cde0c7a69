"""How many runs are started: one table, on this machine, Slurm or Ray.

    python -m launch.local smoke

A table says which binary, with which flags, how often and what a run needs;
`launch.local`, `launch.slurm` and `launch.ray` start the same commands and keep
the same registry, so that a launch goes on wherever the next one is made.
"""
