"""What labels are to a student: a `Task` a file."""

from ojd.tasks.segmentation import segmentation

__all__ = ["segmentation"]
