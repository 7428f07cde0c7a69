"""The public names, and what importing them costs."""

import pathlib
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
