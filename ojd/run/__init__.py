"""A run on the host: config, loop, files, checkpoints, replay."""
