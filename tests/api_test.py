"""The public names, what importing them costs, and the examples of the docs."""

import pathlib
import re
import subprocess
import sys

import ojd

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


def test_examples_of_the_python_page_run(tmp_path, monkeypatch):
  text = (_ROOT / "docs" / "python.md").read_text()
  blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
  assert len(blocks) >= 7
  monkeypatch.chdir(tmp_path)
  names = {}
  for number, block in enumerate(blocks):
    exec(compile(block, f"python.md, block {number}", "exec"), names)
  assert 0 < names["summary"]["num_key_frames"] < 40
  assert (tmp_path / "runs" / "sports" / "summary.json").exists()
  assert len(names["cells"]) == 2
