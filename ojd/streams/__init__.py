"""Where frames come from; `base.open_stream` turns an address into a Stream."""
