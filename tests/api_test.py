"""The public names, what importing them costs, and the examples of the docs."""

import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

import ojd
from ojd.models import export, jitnet, pretrained, student
from ojd.tasks.segmentation import classify

_ROOT = pathlib.Path(__file__).parents[1]


def test_every_public_name_is_there_and_documented():
  assert ojd.__all__ == sorted(ojd.__all__)
  for name in ojd.__all__:
    assert getattr(ojd, name).__doc__, name
  assert callable(ojd.systems.jit) and callable(ojd.updates.sgd)
  assert not hasattr(ojd, "nothing")


def test_importing_the_names_imports_no_heavy_library():
  code = """if True:
    import sys, ojd
    assert "jax" not in sys.modules
    for name in ojd.__all__:
      getattr(ojd, name)
    heavy = {"torch", "cv2", "matplotlib", "ray"} & set(sys.modules)
    print(sorted(heavy))
  """
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, cwd=_ROOT
  )
  assert (done.stdout.strip(), done.stderr) == ("[]", "")


def _blocks(name):
  """The pieces of Python in a page."""
  text = (_ROOT / name).read_text()
  return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def _run_block(word):
  """Runs the one piece of the README in which a word stands."""
  (block,) = [block for block in _blocks("README.md") if word in block]
  names = {}
  exec(compile(block, "README.md", "exec"), names)
  return names


def test_examples_of_the_python_page_run(tmp_path, monkeypatch):
  blocks = _blocks("docs/python.md")
  assert len(blocks) >= 7
  monkeypatch.chdir(tmp_path)
  names = {}
  for number, block in enumerate(blocks):
    exec(compile(block, f"python.md, block {number}", "exec"), names)
  assert 0 < names["summary"]["num_key_frames"] < 40
  assert (tmp_path / "runs" / "sports" / "summary.json").exists()
  assert len(names["cells"]) == 2


@pytest.mark.slow  # it compiles the whole loop around JITNet
def test_example_of_the_readme_learns(capsys):
  _run_block("open_stream")
  lines = capsys.readouterr().out.splitlines()
  accuracies = [float(line.split()[2]) for line in lines]
  assert [int(line.split()[0]) for line in lines] == [0, 8, 16]
  assert accuracies[-1] > 0.3


def test_exported_student_answers_as_the_readme_asks_it(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  net = student.from_linen(jitnet.JITNet(2))
  frame = np.zeros((192, 320, 3), np.uint8)
  params = jax.jit(net.init)(jax.random.key(0), frame)
  answer = lambda p, frame: classify(net.apply(p, frame))
  export.save(tmp_path / "s.jax", answer, params, *frame.shape[:2])
  flat = {k: np.asarray(v) for k, v in pretrained.flatten(params).items()}
  safetensors.numpy.save_file(flat, tmp_path / "s.safetensors")
  names = _run_block("export.load")
  expected = jax.jit(net.apply)(params, frame).argmax(-1)
  for classes in np.asarray(names["classes"]):
    np.testing.assert_array_equal(classes, expected)
