"""Algorithm 1 of the paper, line by line; it knows only accuracies."""


def run(accuracy, *, num_frames, a_thresh, delta_min, delta_max, u_max):
  """-> key frames; updates on each; stride after each.

  Args are as the paper has them; `accuracy` is of (t, u): after u updates.
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
