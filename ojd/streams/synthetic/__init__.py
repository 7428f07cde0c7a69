"""A made-up video with exact labels: streets, sports, parks, nights, cuts."""

from ojd.streams.synthetic.stream import SyntheticStream, open_stream

__all__ = ["SyntheticStream", "open_stream"]
