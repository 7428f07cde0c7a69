"""Where frames come from. `base.open_stream` turns a `--stream` address into a Stream."""
