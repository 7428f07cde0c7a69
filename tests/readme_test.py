"""The README's Python runs as it stands there."""

import pathlib
import re

import jax
import numpy as np
import pytest
import safetensors.numpy

from ojd.models import export, jitnet, pretrained, student
from ojd.tasks.segmentation import classify

ROOT = pathlib.Path(__file__).parents[1]


def _block(word):
  """The one piece of Python in which a word stands."""
  text = (ROOT / "README.md").read_text()
  blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
  (block,) = [block for block in blocks if word in block]
  return compile(block, "README.md", "exec")


@pytest.mark.slow  # it compiles the whole loop around JITNet
def test_python_block_learns(capsys):
  exec(_block("open_stream"), {})
  lines = capsys.readouterr().out.splitlines()
  accuracies = [float(line.split()[2]) for line in lines]
  assert [int(line.split()[0]) for line in lines] == [0, 8, 16]
  assert accuracies[-1] > 0.3


def test_exported_student_answers(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  net = student.from_linen(jitnet.JITNet(2))
  frame = np.zeros((192, 320, 3), np.uint8)
  params = jax.jit(net.init)(jax.random.key(0), frame)
  answer = lambda p, frame: classify(net.apply(p, frame))
  export.save(tmp_path / "s.jax", answer, params, *frame.shape[:2])
  flat = {k: np.asarray(v) for k, v in pretrained.flatten(params).items()}
  safetensors.numpy.save_file(flat, tmp_path / "s.safetensors")
  names = {}
  exec(_block("export.load"), names)
  expected = jax.jit(net.apply)(params, frame).argmax(-1)
  for classes in np.asarray(names["classes"]):
    np.testing.assert_array_equal(classes, expected)
