"""Flags that are more than a value: choices that are switches too."""

import shlex

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import run_flags


def _parse(*words):
  with flagsaver.flagsaver():
    flags.FLAGS(["program", *words])
    return run_flags.run_config()


@pytest.mark.parametrize(
  ("words", "kind"),
  [
    ((), "none"),
    (("--save_masks",), "png"),
    (("--save_masks", "--seed=5"), "png"),
    (("--nosave_masks",), "none"),
    (("--save_masks=png",), "png"),
    (("--save_masks=video",), "video"),
    (("--save_masks=none",), "none"),
    (("--save_masks=true",), "png"),
  ],
)
def test_masks_are_a_choice_and_a_switch(words, kind):
  config = _parse(*words)
  assert config.save_masks == kind
  assert config.seed == (5 if "--seed=5" in words else 0)


def test_unknown_choice_is_refused():
  with pytest.raises(flags.IllegalFlagValueError, match="none|png|video"):
    _parse("--save_masks=avi")


def test_command_line_says_the_same_again():
  words = ("--save_masks=video", "--boxes", "--areas", "--tensorboard")
  config = _parse(*words, "--workdir=a b", "--nooverlay")
  line = run_flags.command("experiments.online_distill", config)
  again = shlex.split(line)[3:]
  assert set(words) <= set(again) and _parse(*again) == config
