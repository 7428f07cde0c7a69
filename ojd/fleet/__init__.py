"""Many streams: one program over the devices of a machine, many machines."""
