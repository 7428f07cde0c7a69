"""Online just-in-time distillation.

A cheap student learns a video stream from an expensive teacher, live.
"""

__version__ = "0.1.0"
