"""Every flag and option out of its range is named in one line."""

import dataclasses

import pytest

from ojd import systems
from ojd.errors import UserError
from ojd.run import config as config_lib
from ojd.run.config import RunConfig, check, settled
from tests.reference.refusals import refused

GOOD = RunConfig(workdir="somewhere")
NAN, INF = float("nan"), float("inf")


def _is_refused(*words, **flags):
  with refused(*words):
    check(dataclasses.replace(GOOD, **flags))


def test_defaults_are_the_papers():
  check(GOOD)
  assert config_lib.bound_system(GOOD).options == {
    **{"a_thresh": 0.8, "delta_min": 8, "delta_max": 64},
    **{"u_max": 8, "u_min": 0, "norm": "frame"},
  }
  assert str(config_lib.bound_update(GOOD)) == "sgd"
  assert systems.bind("ams").options == {
    **{"sampling_rate": 1.0, "train_period": 10.0, "horizon": 240.0},
    **{"iterations": 20, "batch_size": 8, "one_time": False},
    **{"adaptive_sampling": True, "adaptive_training": False},
  }


OUT_OF_RANGE = {
  "workdir": [""],
  "update": ["lion"],
  "init": ["pretrained"],
  "model": ["unet", "shadow:num_units=2"]
  + [f"jitnet:width={width}" for width in (0, 9, NAN)],
  "a_thresh": [1.5, -0.1, NAN],
  "delta_min": [0, 2**30],
  "delta_max": [2**31],
  "u_max": [3_000_000_000, -1],
  "learning_rate": [INF, 0.0, NAN],
  "num_frames": [0],
  "start_frame": [-1, 10**9 + 1],
  "every": [0, 10**400],
  "eval_every": [-1],
  "checkpoint_every": [-1],
  "precision": ["float16"],
  "save_masks": ["avi"],
  "seed": [-1],
  "teacher_timeout": [0.0, INF, NAN],
}


@pytest.mark.parametrize("flag", OUT_OF_RANGE)
def test_value_out_of_range_is_refused_by_name(flag):
  for value in OUT_OF_RANGE[flag]:
    _is_refused(f"--{flag}", **{flag: value})


OPTIONS = {
  "flow:quick": "it has flow:slow, flow:fast",
  "jit:stride=3": "jit has no option 'stride'; it has a_thresh",
  "jit:task=none": "no option 'task'",
  "jit:norm=batch": "one of frame, key_frame",
  "jit:delta_max=7": "delta_max=7 is below delta_min=8",
  "jit_plus:delta_min=65": "delta_max=64 is below delta_min=65",
  "fixed:u_min=9": "u_min=9 is above u_max=8",
  "offline_oracle:norm=key_frame": "no option 'norm'",
  "osvos:mode=C": "one of A, B",
  "ams:sampling_rate=0": "number, from 0.001 to 1000",
  "flow:flow=raft:/nowhere.pth": "no such file of weights",
  "delta:policy=max": "one of out, min",
  "delta:norm=key_frame": "between key frames norms are its own",
  "delta:frozen:u_max=8": "base=frozen has no use for u_max",  # a default
  "delta:exact=true:gamma=4": "exact=true has no use for gamma",
  "skip:gate=both": "one of input, output",
  "skip:memory=all": "one of forget, sum, reference",
  "skip:block=3": "one of 1, 2, 4, 8",
  "skip:match_authors=yes": "the authors' gates have memory=forget",
  "skip:gamma=2": "skip has no option 'gamma'",
}
for words, systems_of_it in {
  "integer, from 0 to 1000000": ["jit:u_max=-1"],
  "integer, at least 1": ["fixed:stride=0", "delta:gamma=0"]
  + [f"delta:refresh_every={number}" for number in (0, 2**30)],
  "number, from 0 to 1": ["jit:a_thresh=1.5"],
  "number, from 0 to 255, or none": ["delta:refresh_change=-1"]
  + ["delta:refresh_change=nan"],
  "number, at least 0": ["skip:eps=-0.1", "skip:eps=inf"],
  "known are dis:ultrafast": ["flow:flow=dis:fast:fast"]
  + ["flow:flow=farneback", "jit_flow:flow=dis:slow"],
}.items():
  OPTIONS |= dict.fromkeys(systems_of_it, words)


@pytest.mark.parametrize(("system", "words"), OPTIONS.items())
def test_options_of_methods_are_refused_in_one_line(system, words):
  name = "flow" if "flow=" in system else system.split(":")[0]
  _is_refused(words, name, system=system)


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    ({"system": "frozen", "update": "adam"}, "--update=adam: --system=frozen"),
    ({"system": "teacher", "learning_rate": 0.1}, "--learning_rate=0.1: "),
    ({"system": "delta:frozen", "update": "sgd"}, "trains nothing"),
    ({"system": "frozen", "a_thresh": 0.9}, "--a_thresh=0.9: frozen has no"),
    ({"system": "fixed", "delta_min": 4}, "--delta_min=4: fixed has no option"),
    ({"system": "ams", "u_max": 3}, "--u_max=3: ams has no option 'u_max'"),
    ({"system": "delta:frozen", "u_max": 3}, "has no use for u_max"),
    ({"system": "jit:u_max=2", "u_max": 2}, "--u_max=2: --system=jit:u_max=2"),
    ({"delta_max": 7}, "delta_max=7 is below delta_min=8"),
    ({"u_min": 9}, "u_min=9 is above u_max=8"),
    ({"update": "sgd:learning_rate=1", "learning_rate": 1.0}, "learning_rate"),
    ({"model": "mobilenet_v2"}, "--init=bundled is for --model=jitnet and"),
    ({"model": "jitnet:width=0.9"}, "not for --model=jitnet:width=0.9;"),
  ],
)
def test_a_flag_that_the_method_does_not_use_is_refused(flags, words):
  _is_refused(words, **flags)


def test_what_makes_sense_is_allowed():
  for flags in (
    *({"a_thresh": 0.0}, {"a_thresh": 1.0}, {"u_max": 0}, {"delta_max": 8}),
    *({"model": "jitnet:width=0.5"}, {"model": "shadow"}),
    {"model": "mobilenet_v2", "init": "random"},
  ):
    check(dataclasses.replace(GOOD, **flags))
  for system in (
    *("fixed:stride=100", "jit:norm=key_frame:a_thresh=1"),
    *("flow:fast:flow=dis:fast", "delta:match_authors=yes"),
    *("skip:match_authors=yes:memory=forget:block=8", "delta:plus:delta_min=2"),
  ):
    check(dataclasses.replace(GOOD, system=system))


def test_system_chooses_its_step_where_nobody_does():
  for system, update, expected in (
    ("jit", None, "sgd"),
    ("jit_plus", None, "fast_head"),
    ("jit_flow:plus", None, "fast_head"),
    ("jit_plus", "sgd", "sgd"),
    ("frozen", None, None),
  ):
    config = dataclasses.replace(GOOD, system=system, update=update)
    check(config)
    assert settled(config).update == expected


def test_constants_of_another_system_are_left_out():
  config = dataclasses.replace(GOOD, system="frozen", u_max=3, update="adam")
  check(config_lib.without_unused(config))
  other = dataclasses.replace(config, system="delta:frozen")
  check(config_lib.without_unused(other))
  with pytest.raises(UserError, match="--u_max=3"):
    check(config_lib.without_unused(config, kept={"u_max"}))


def test_an_option_is_set_where_the_config_has_it():
  changed = config_lib.with_option(GOOD, "u_max", 3)
  assert changed == dataclasses.replace(GOOD, u_max=3)
  for system, name, value, expected in (
    ("jit:u_max=2", "u_max", 3, "jit:u_max=3"),
    ("flow:fast:stride=4", "stride", 6, "flow:fast:stride=6"),
    ("fixed", "stride", 6, "fixed:stride=6"),
  ):
    config = dataclasses.replace(GOOD, system=system)
    changed = config_lib.with_option(config, name, value)
    check(changed)
    assert changed.system == expected
