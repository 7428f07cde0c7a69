"""Every flag out of its range is named in one line."""

import dataclasses

import pytest

from ojd.errors import UserError
from ojd.run import config as config_lib
from ojd.run.config import RunConfig, check, settled

GOOD = RunConfig(workdir="somewhere")


def test_defaults_are_the_papers():
  check(GOOD)
  assert config_lib.bound_system(GOOD).options == {
    "a_thresh": 0.8,
    "delta_min": 8,
    "delta_max": 64,
    "u_max": 8,
    "u_min": 0,
    "norm": "frame",
  }
  update = config_lib.bound_update(GOOD)
  assert update.name == "sgd" and update.options["learning_rate"] == 0.01


@pytest.mark.parametrize(
  ("flag", "value"),
  [
    ("workdir", ""),
    ("system", "jitt"),
    ("system", "flow:quick"),
    ("system", "osvos:"),
    ("update", "lion"),
    ("init", "pretrained"),
    ("model", "unet"),
    ("model", "jitnet:width=0"),
    ("model", "jitnet:width=9"),
    ("model", "jitnet:width=nan"),
    ("model", "shadow:num_units=2"),
    ("a_thresh", 1.5),
    ("a_thresh", -0.1),
    ("a_thresh", float("nan")),
    ("delta_min", 0),
    ("delta_max", 2**31),
    ("delta_min", 2**30),
    ("u_max", 3_000_000_000),
    ("learning_rate", float("inf")),
    ("u_max", -1),
    ("num_frames", 0),
    ("start_frame", -1),
    ("start_frame", 10**9 + 1),
    ("every", 0),
    ("every", 10**400),
    ("eval_every", -1),
    ("learning_rate", 0.0),
    ("learning_rate", float("nan")),
    ("seed", -1),
    ("teacher_timeout", 0.0),
    ("teacher_timeout", float("inf")),
    ("teacher_timeout", float("nan")),
  ],
)
def test_value_out_of_range_is_refused_by_name(flag, value):
  with pytest.raises(UserError, match=f"--{flag}") as error:
    check(dataclasses.replace(GOOD, **{flag: value}))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("system", "words"),
  [
    ("jit:norm=batch", "norm=batch: one of frame, key_frame"),
    ("jit:delta_max=7", "delta_max=7 is below delta_min=8"),
    ("jit:u_min=9", "u_min=9 is above u_max=8"),
    ("jit:gamma=3", "jit has no option 'gamma'"),
    ("frozen:norm=key_frame", "frozen has no option 'norm'"),
    ("flow:norm=key_frame", "flow has no option 'norm'"),
    ("flow:flow=farneback", "flow=farneback: unknown; known are dis:ultra"),
    ("flow:flow=raft:/nowhere.pth", "no such file of weights"),
    ("delta:refresh_every=0", "refresh_every=0: integer, at least 1"),
    (f"delta:refresh_every={2**30}", f"refresh_every={2**30}: integer"),
    ("delta:refresh_change=-1", "refresh_change=-1: number, from 0 to 255"),
    ("delta:refresh_change=nan", "refresh_change=nan: number, from 0 to 255"),
    ("delta:gamma=0", "gamma=0: integer, at least 1"),
    ("delta:policy=max", "policy=max: one of out, min"),
    ("skip:eps=-0.1", "eps=-0.1: number, at least 0"),
    ("skip:eps=inf", "eps=inf: number, at least 0"),
    ("skip:gate=both", "gate=both: one of input, output"),
    ("skip:memory=all", "memory=all: one of forget, sum, reference"),
    ("skip:block=3", "block is one of 1, 2, 4, 8"),
    ("skip:match_authors=true", "the authors' gates have memory=forget"),
  ],
)
def test_option_that_cannot_be_is_refused(system, words):
  with pytest.raises(UserError) as error:
    check(dataclasses.replace(GOOD, system=system))
  assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
  "flags",
  [
    {"system": "fixed", "delta_min": 100},
    {"system": "frozen", "update": "adam"},
    {"system": "teacher", "learning_rate": 0.1},
  ],
)
def test_flag_that_a_system_does_not_use_is_refused(flags):
  name = list(flags)[1]
  with pytest.raises(UserError, match=f"--{name}"):
    check(dataclasses.replace(GOOD, **flags))


@pytest.mark.parametrize("model", ["mobilenet_v2", "jitnet:width=1.0"])
def test_bundled_students_are_of_their_networks(model):
  config = dataclasses.replace(GOOD, model=model)
  there = "--init=bundled is of --model=jitnet and --model=shadow, not of "
  with pytest.raises(UserError, match=f"{there}--model={model};"):
    check(config)
  check(dataclasses.replace(config, init="random"))
  check(dataclasses.replace(GOOD, model="jitnet:width=0.5"))
  check(dataclasses.replace(GOOD, model="shadow"))


@pytest.mark.parametrize(
  "system",
  [
    "skip:match_authors=true:memory=forget",
    "delta:match_authors=true",
    "fixed:stride=100",
    "flow:stride=3",
  ],
)
def test_options_that_go_together_are_allowed(system):
  check(dataclasses.replace(GOOD, system=system))


@pytest.mark.parametrize(
  ("flag", "value"),
  [("a_thresh", 0.0), ("a_thresh", 1.0), ("u_max", 0), ("delta_max", 8)],
)
def test_ends_of_ranges_are_allowed(flag, value):
  check(dataclasses.replace(GOOD, **{flag: value}))


@pytest.mark.parametrize(
  ("system", "name", "value", "expected"),
  [
    ("jit", "a_thresh", 0.5, {"system": "jit", "a_thresh": 0.5}),
    ("jit:a_thresh=0.9", "a_thresh", 0.5, {"system": "jit:a_thresh=0.5"}),
    ("fixed", "stride", 4, {"system": "fixed:stride=4"}),
    ("flow:slow:stride=9", "stride", 4, {"system": "flow:slow:stride=4"}),
    ("flow:flow=dis:fast", "seed", 1, {"system": "flow:flow=dis:fast"}),
  ],
)
def test_option_is_set_where_it_stands(system, name, value, expected):
  config = dataclasses.replace(GOOD, system=system)
  made = config_lib.with_option(config, name, value)
  assert {key: getattr(made, key) for key in expected} == expected
  check(made)


def test_unknown_kind_of_masks_is_refused():
  with pytest.raises(UserError, match="--save_masks=avi: unknown; known"):
    check(dataclasses.replace(GOOD, save_masks="avi"))


@pytest.mark.parametrize(
  ("system", "update", "expected"),
  [
    ("jit", None, "sgd"),
    ("jit_plus", None, "fast_head"),
    ("jit_flow:plus", None, "fast_head"),
    ("jit_plus", "sgd", "sgd"),
  ],
)
def test_system_chooses_its_step_where_nobody_does(system, update, expected):
  config = dataclasses.replace(GOOD, system=system, update=update)
  check(config)
  assert settled(config).update == expected
