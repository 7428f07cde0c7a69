"""Where frames come from: `open_stream` turns an address into a `Stream`.

stream = ojd.streams.open_stream("folder:clips/cars", height=192, width=320)
for sample in stream.read():
  sample.t, sample.frame, sample.truth
"""

from ojd.streams.base import Stream, StreamSpec, open_stream

__all__ = ["Stream", "StreamSpec", "open_stream"]
