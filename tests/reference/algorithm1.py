"""Algorithm 1 of the paper, line by line; it knows only accuracies."""


def run(accuracy, *, num_frames, a_thresh, delta_min, delta_max, u_max):
  """Says when the teacher is asked and how often the student is updated.

  Args:
    accuracy: (t, u) -> mean IoU on key frame t after u updates there.
    num_frames: frames of the stream.
    a_thresh: desired accuracy.
    delta_min: least stride.
    delta_max: greatest stride.
    u_max: most updates on a frame.

  Returns:
    Key frames; number of updates on each; stride that follows each.
  """
  keys, num_updates, strides = [], [], []
  delta = delta_min
  for t in range(num_frames):
    if t % delta == 0:
      u, update = 0, True
      keys.append(t)
      num_updates.append(0)
      while update:
        a_curr = accuracy(t, u)
        if u < u_max and a_curr < a_thresh:
          num_updates[-1] += 1
        else:
          update = False
        u += 1
      if a_curr > a_thresh:
        delta = min(delta_max, 2 * delta)
      else:
        delta = max(delta_min, delta // 2)
      strides.append(delta)
  return keys, num_updates, strides
