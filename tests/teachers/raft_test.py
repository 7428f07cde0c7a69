"""RAFT with random weights, beside torchvision's own module."""

import numpy as np
import torch
from torchvision.models import optical_flow as networks

from ojd.run import config as config_lib
from tests.reference.refusals import refused


def _frames(height, width):
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 256, (2, height, width, 3)).astype(np.uint8)
  frames.flags.writeable = False  # as JAX lends them
  return frames


def test_flow_is_torchvisions_from_the_frame_to_the_one_before(tmp_path):
  torch.manual_seed(0)
  model, path = networks.raft_small(weights=None).eval(), tmp_path / "s.pth"
  torch.save(model.state_dict(), path)
  frame, previous = _frames(128, 136)
  tensors = [
    torch.from_numpy(x.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    for x in (frame, previous)
  ]
  with torch.no_grad():
    expected = model(*tensors)[-1][0].permute(1, 2, 0).numpy()
    backwards = model(*tensors[::-1])[-1][0].permute(1, 2, 0).numpy()
  flow = config_lib.make_flow(f"raft:{path}")(frame, previous)
  assert flow.dtype == np.float32
  np.testing.assert_allclose(flow, expected, atol=1e-4)
  assert np.abs(flow - backwards).max() > 1e-2
  # Frames of any size are taken.
  flow = config_lib.make_flow(f"raft:{path}")(*_frames(50, 77))
  assert flow.shape == (50, 77, 2) and np.isfinite(flow).all()


def test_file_of_other_weights_is_refused_in_one_line(tmp_path):
  broken, other = tmp_path / "broken.pth", tmp_path / "other.pth"
  broken.write_bytes(b"no weights")
  torch.save({"weight": torch.zeros(3)}, other)
  for text, words in (
    (f"raft:{broken}", "cannot be read"),
    (f"raft:{other}", "another network"),
    (f"raft:{tmp_path / 'none.pth'}", "no such file"),
    ("raft", "known are dis:ultrafast"),
    ("dis:slow", "known are dis:ultrafast"),
  ):
    with refused(words) as error:
      config_lib.make_flow(text)
    assert str(error.value).startswith(f"flow={text}")
