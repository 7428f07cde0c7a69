"""Flags that are more than a value: choices that are switches too."""

import json
import shlex
import subprocess
import sys

from tests import binaries

# In a process of its own: binaries that define the same flags are tested here
# as well.
_PARSE = """
import dataclasses, json, sys
from absl import flags
from ojd.run import config as config_lib
from experiments import run_flags

for words in json.load(sys.stdin):
  flags.FLAGS.unparse_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  try:
    flags.FLAGS(["program", *words])
  except flags.Error as error:
    print(json.dumps(str(error)))
    continue
  config = run_flags.run_config()
  line = config_lib.command("experiments.online_distill", config)
  print(json.dumps([dataclasses.asdict(config), line]))
"""


def _parse(*lines):
  """Config and command line of each line of words, or what is wrong."""
  command = [sys.executable, "-c", _PARSE]
  options = {"cwd": binaries.ROOT, "text": True, "input": json.dumps(lines)}
  said = subprocess.check_output(command, **options)
  return [json.loads(line) for line in said.splitlines()]


def test_masks_are_a_choice_and_a_switch():
  kinds = {
    **{(): "none", ("--save_masks",): "png", ("--nosave_masks",): "none"},
    **{(f"--save_masks={kind}",): kind for kind in ("none", "png", "video")},
    **{("--save_masks=true",): "png", ("--save_masks", "--seed=5"): "png"},
  }
  for words, (config, _) in zip(kinds, _parse(*kinds), strict=True):
    assert config["save_masks"] == kinds[words], words
    assert config["seed"] == (5 if "--seed=5" in words else 0)
  (problem,) = _parse(["--save_masks=avi"])
  assert all(kind in problem for kind in ("none", "png", "video"))


def test_command_line_says_the_same_again():
  words = ("--save_masks=video", "--boxes", "--areas", "--tensorboard")
  ((config, line),) = _parse([*words, "--workdir=a b", "--nooverlay"])
  again = shlex.split(line)[3:]
  assert set(words) <= set(again)
  assert _parse(again) == [[config, line]]
