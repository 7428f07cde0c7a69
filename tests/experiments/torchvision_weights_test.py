"""torchvision's weights as the beginning of a student."""

import jax
import numpy as np
import pytest
import torch
from torchvision.models import mobilenet_v2

from experiments import torchvision_weights
from ojd import labels
from ojd.errors import UserError
from ojd.models import pretrained
from ojd.run import build
from ojd.run.config import RunConfig
from tests import binaries
from tests.reference.refusals import refused

NARROW = 0.1
NETWORK = f"mobilenet_v2:width={NARROW}"
GROUPS = labels.parse_groups("", ("background", "cat"))


def _state():
  torch.manual_seed(0)
  return mobilenet_v2(weights=None, width_mult=NARROW).state_dict()


def _student(path, model=NETWORK):
  return build.make_student(RunConfig(init=str(path), model=model), GROUPS)


def test_binary_writes_a_beginning_that_a_student_takes(tmp_path):
  source, path = tmp_path / "m.pth", tmp_path / "student.safetensors"
  state = _state()
  torch.save(state, source)
  flags = f"--data=torchvision:{source}", f"--workdir={tmp_path}"
  binaries.succeed("pretrain", *flags, f"--model={NETWORK}")
  found = pretrained.load(path)
  assert found.class_names == () and found.about["model"] == NETWORK
  stem = found.params["backbone/stem/conv/kernel"]
  theirs = state["features.0.0.weight"].numpy()
  np.testing.assert_array_equal(stem, theirs.transpose(2, 3, 1, 0))
  np.testing.assert_array_equal(
    found.params["backbone/block2/project/norm/scale"],
    state["features.2.conv.3.weight"].numpy(),
  )
  frame = np.zeros((64, 64, 3), np.uint8)
  params = jax.eval_shape(_student(path).init, jax.random.key(0), frame)
  assert params["logits"]["kernel"].shape == (1, 1, 256, 2)
  for model, words in (
    ("jitnet", f"is for --model={NETWORK}, not for --model=jitnet"),
    ("mobilenet_v2", "see --model"),
  ):
    with pytest.raises(UserError, match=words):
      _student(path, model)


@pytest.mark.parametrize(
  ("name", "value", "words"),
  [
    ("features.3.conv.2.weight", None, "is missing: no MobileNetV2"),
    ("features.19.0.weight", torch.zeros(3), "is no part of a MobileNetV2"),
    ("features.0.0.weight", torch.zeros(3), "is (3,), not (3, 3, 3, 8)"),
    ("features.0.1.bias", [0.0] * 8, "holds no numbers"),
    ("features.0.1.bias", torch.full((8,), torch.nan), "is not finite"),
  ],
)
def test_other_states_are_one_line(name, value, words):
  state = {n: x for n, x in _state().items() if n != name}
  if value is not None:
    state[name] = value
  with refused(f"--data: {name} {words}"):
    torchvision_weights.convert(state, NARROW)


class _Code:
  """What a file must not be able to run."""

  def __reduce__(self):
    return print, ("executed",)


def test_other_files_are_one_line(tmp_path, capsys):
  path = tmp_path / "m.pth"
  with pytest.raises(UserError, match="No such file"):
    torchvision_weights.read(path)
  for content in (None, [1, 2], {3: torch.zeros(1)}, {"a": _Code()}):
    path.write_bytes(b"\x80garbage")
    if content is not None:
      torch.save(content, path)
    with pytest.raises(UserError, match="no state dict"):
      torchvision_weights.read(path)
  assert "executed" not in capsys.readouterr().out
