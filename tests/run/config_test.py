"""Every flag out of its range is named in one line."""

import dataclasses

import pytest

from ojd.errors import UserError
from ojd.models import optical_flow
from ojd.run.config import RunConfig, check, settled

GOOD = RunConfig(workdir="somewhere")


def test_defaults_are_the_papers():
  check(GOOD)
  settings = GOOD.settings._asdict()
  assert settings.pop("flow") is optical_flow.dis("medium")
  assert settings == {
    "a_thresh": 0.8,
    "delta_min": 8,
    "delta_max": 64,
    "u_max": 8,
    "u_min": 0,
    "norm": "frame",
    "sampling_rate": 1.0,
    "train_period": 10.0,
    "horizon": 240.0,
    "iterations": 20,
    "batch_size": 8,
    "refresh_every": None,
    "refresh_change": None,
    "follow": None,
    "gamma": 4,
    "policy": "out",
    "skip_eps": 0.1,
    "skip_gate": "input",
    "skip_memory": "reference",
    "skip_block": 1,
    "quirks": False,
    "fps": 25.0,
    "trained": None,
  }


@pytest.mark.parametrize(
  ("flag", "value"),
  [
    ("workdir", ""),
    ("system", "jitt"),
    ("system", "flow:quick"),
    ("system", "osvos:"),
    ("flow", "farneback"),
    ("flow", "raft:/nowhere.pth"),
    ("update", "lion"),
    ("init", "pretrained"),
    ("model", "unet"),
    ("model", "jitnet:width=0"),
    ("model", "jitnet:width=9"),
    ("model", "jitnet:width=nan"),
    ("model", "shadow:num_units=2"),
    ("norm", "batch"),
    ("a_thresh", 1.5),
    ("a_thresh", -0.1),
    ("a_thresh", float("nan")),
    ("delta_min", 0),
    ("delta_max", 7),
    ("delta_max", 2**31),
    ("delta_min", 2**30),
    ("u_max", 3_000_000_000),
    ("learning_rate", float("inf")),
    ("u_max", -1),
    ("u_min", 9),
    ("refresh_every", 0),
    ("refresh_every", 2**30),
    ("refresh_change", -1.0),
    ("refresh_change", float("nan")),
    ("gamma", 0),
    ("policy", "max"),
    ("skip_eps", -0.1),
    ("skip_eps", float("inf")),
    ("skip_gate", "both"),
    ("skip_memory", "all"),
    ("skip_block", 3),
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


@pytest.mark.parametrize("system", ["frozen", "flow:slow", "offline_oracle"])
def test_norms_of_key_frames_need_key_frames(system):
  config = dataclasses.replace(GOOD, norm="key_frame", system=system)
  with pytest.raises(UserError, match="--norm=key_frame"):
    check(config)


@pytest.mark.parametrize("model", ["mobilenet_v2", "jitnet:width=1.0"])
def test_bundled_students_are_of_their_networks(model):
  config = dataclasses.replace(GOOD, model=model)
  there = "--init=bundled is of --model=jitnet and --model=shadow, not of "
  with pytest.raises(UserError, match=f"{there}--model={model};"):
    check(config)
  check(dataclasses.replace(config, init="random"))
  check(dataclasses.replace(GOOD, model="jitnet:width=0.5"))
  check(dataclasses.replace(GOOD, model="shadow"))


def test_authors_gates_forget():
  config = dataclasses.replace(GOOD, system="skip", quirks=True)
  with pytest.raises(UserError, match="--quirks: .*--skip_memory=forget"):
    check(config)
  check(dataclasses.replace(config, skip_memory="forget"))
  check(dataclasses.replace(config, system="delta"))


def test_fixed_stride_knows_no_greatest_one():
  check(dataclasses.replace(GOOD, system="fixed", delta_min=100))


@pytest.mark.parametrize(
  ("flag", "value"),
  [("a_thresh", 0.0), ("a_thresh", 1.0), ("u_max", 0), ("delta_max", 8)],
)
def test_ends_of_ranges_are_allowed(flag, value):
  check(dataclasses.replace(GOOD, **{flag: value}))


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
