"""IoU by counting pixels: the definitions, and nothing clever."""

import numpy as np


def _iou(labels, classes, num_classes):
  """By class, of those on either side, over pixels that count."""
  ious = {}
  for c in range(num_classes):
    union = np.sum((labels == c) | (classes == c))
    if union:
      ious[c] = np.sum((labels == c) & (classes == c)) / union
  return ious


def frame_miou(labels, classes, num_classes, counts):
  """Mean IoU over the objects on either side; 1 where there is none."""
  ious = _iou(labels[counts], classes[counts], num_classes)
  ious.pop(0, None)
  return np.mean(list(ious.values())) if ious else 1.0


def run_iou(pairs, num_classes):
  """IoU by class of all pixels of (labels, classes) frames."""
  labels, classes = map(np.array, zip(*pairs, strict=True))
  counts = labels != 255
  return _iou(labels[counts], classes[counts], num_classes)


def run_miou(pairs, num_classes):
  """Mean over the objects that were seen in any frame; 1 without any."""
  labels, classes = map(np.array, zip(*pairs, strict=True))
  return frame_miou(labels, classes, num_classes, labels != 255)
