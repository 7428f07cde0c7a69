"""IoU by counting pixels one by one: the definitions, and nothing clever."""

import numpy as np


def frame_miou(labels, classes, num_classes, counts):
  """Mean IoU over the objects on either side; 1 where there is none."""
  ious = []
  for c in range(1, num_classes):
    intersection = union = 0
    for label, answer, is_counted in zip(
      labels.flat, classes.flat, counts.flat, strict=True
    ):
      if is_counted:
        intersection += label == c and answer == c
        union += label == c or answer == c
    if union:
      ious.append(intersection / union)
  return sum(ious) / len(ious) if ious else 1.0


def run_iou(pairs, num_classes):
  """IoU by class of (labels, classes) frames, hits and misses summed first."""
  hits, misses, false_alarms = np.zeros((3, num_classes), int)
  for labels, classes in pairs:
    for label, answer in zip(labels.flat, classes.flat, strict=True):
      if label == 255:
        continue
      if label == answer:
        hits[label] += 1
      else:
        misses[label] += 1
        false_alarms[answer] += 1
  ious = {}
  for c in range(num_classes):
    union = hits[c] + misses[c] + false_alarms[c]
    if union:
      ious[c] = hits[c] / union
  return ious


def run_miou(pairs, num_classes):
  """Mean over the objects that were seen in any frame; 1 without any."""
  ious = run_iou(pairs, num_classes)
  ious.pop(0, None)
  return sum(ious.values()) / len(ious) if ious else 1.0
