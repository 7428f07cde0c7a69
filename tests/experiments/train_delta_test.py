"""The binary that trains what stands in for convolutions."""

import pathlib

import pytest

from ojd.models import pretrained
from ojd.models.delta import files
from tests import binaries


@pytest.mark.slow  # the compiling of one step is most of a minute
@pytest.mark.parametrize("form", files.FORMS)
def test_smoke_run_writes_a_file_that_a_run_takes(form, tmp_path):
  flags = ("--smoke", f"--form={form}", f"--workdir={tmp_path}")
  done = binaries.succeed("train_delta", *flags)
  assert "GMAC: key frame" in done.stdout
  path = pathlib.Path(tmp_path) / "delta.safetensors"
  found = pretrained.load(path)
  assert found.about["form"] == form and len(found.class_names) > 2
  _, trained = files.split(found)
  assert trained.form == form
  binaries.succeed("train_delta", *flags)
  system = "skip" if form == files.SKIP else "delta"
  binaries.succeed(
    *("online_distill", "--smoke", f"--system={system}", f"--init={path}"),
    f"--workdir={tmp_path / 'run'}",
  )
