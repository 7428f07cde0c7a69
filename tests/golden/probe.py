r"""What this tree computes, sends and decides, as JSON: one side of the gate.

    python -m tests.golden.probe OUT [--only=REGEX]

`tests.golden.same_as` runs it in two trees and compares what comes out, so each
revision carries a probe that speaks its own API. Names of cases and keys never
change: where the API renames something, the probe translates.
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import imageio.v3 as iio
import jax
import numpy as np

from ojd.run import build, compilation, recorded_run, runner
from ojd.run import config as config_lib
from ojd.run.config import RunConfig
from ojd.types import Labels

RESULTS = "results.json"
_HEIGHT, _WIDTH, _NUM_FRAMES = 64, 96, 40
# Every run: many key frames, so that much is learned in little time.
_BASE = dict(
  stream=f"synthetic:sports?num_frames={_NUM_FRAMES}",
  teacher="ground_truth",
  height=_HEIGHT,
  width=_WIDTH,
  classes="person",
  overlay=False,
  checkpoint_every=3,
  save_masks="png",
  seed=3,
)
_SCHEDULE = dict(delta_min=4, delta_max=16, u_max=3)
_AMS = ":sampling_rate=6:train_period=0.3:horizon=2:iterations=3:batch_size=2"
# By the name of a case the flags of its method, in the words of this tree.
SYSTEMS = {
  "jit": _SCHEDULE,
  "jit_key_norms": _SCHEDULE | dict(system="jit:norm=key_frame"),
  "jit_plus": _SCHEDULE,
  "jit_plus_no_honesty": _SCHEDULE
  | dict(system="jit_plus:pre_update_schedule=false"),
  "jit_plus_no_stretch": _SCHEDULE | dict(system="jit_plus:stride_scale=1"),
  "jit_plus_no_zeal": _SCHEDULE | dict(system="jit_plus:target_margin=0"),
  "jit_plus_no_boost": _SCHEDULE | dict(system="jit_plus:step_scale=0"),
  "jit_flow": _SCHEDULE,
  "jit_flow_plus": _SCHEDULE | dict(system="jit_flow:plus"),
  "shadowtutor": _SCHEDULE,
  "shadowtutor_full": _SCHEDULE | dict(system="shadowtutor:full"),
  "ams": dict(system="ams" + _AMS),
  "ams_steady": dict(system="ams:steady" + _AMS),
  "ams_slow": dict(system="ams:slow" + _AMS),
  "ams_one_time": dict(system="ams:one_time" + _AMS),
  "fixed": dict(system="fixed:stride=6", u_max=3),
  "frozen": {},
  "teacher": {},
  "copy_last": dict(system="copy_last:stride=6"),
  "flow": dict(system="flow:stride=6"),
  "flow_slow": dict(system="flow:slow"),
  "flow_fast": dict(system="flow:fast"),
  "osvos": dict(system="osvos:num_passes=1"),
  "osvos_A": dict(system="osvos:mode=A:num_passes=1"),
  "delta": _SCHEDULE,
  "delta_plus": _SCHEDULE | dict(system="delta:plus"),
  "delta_frozen": dict(system="delta:frozen"),
  "delta_same": _SCHEDULE | dict(system="delta:exact=true"),
  "skip": _SCHEDULE,
  "skip_authors": _SCHEDULE
  | dict(system="skip:gate=output:memory=forget:match_authors=true"),
}
# Those that go through all frames; the others differ in their programs alone.
RUNS = (
  *("jit", "jit_plus", "jit_flow_plus", "shadowtutor", "ams", "fixed"),
  *("frozen", "teacher", "copy_last", "flow", "flow_fast", "osvos", "delta"),
  "skip",
)
UPDATES = {
  "nesterov": {},
  "adam": {},
  "decoder": {},
  "partial": {},
  "partial_adam": {},
  "head": {},
  "norm_only": {},
  "top_k": dict(update="top_k:fraction=0.1"),
  "first_layers": dict(update="first_layers:fraction=0.1"),
  "last_layers": {},
  "both_ends": {},
  "random_coordinates": {},
  "rank1": {},
  "ema": {},
  "replay": {},
  "nonfinite_guard": {},
}
MODELS = {
  "mobilenet_seg": dict(model="mobilenet_v2"),
  "shadow": {},
  "ddrnet": dict(model="ddrnet23_slim"),
  "hrnet": dict(model="hrnet_w18_small"),
}
_LINK = dict(
  link="up_mbps=2,down_mbps=2,rtt_ms=60,teacher_ms=50,update_ms=10,codec=jpeg"
)
_AMS_LINK = dict(link="up_mbps=1,down_mbps=1,rtt_ms=80,teacher_ms=50")


def _config(workdir, **flags):
  return RunConfig(**_BASE | flags, workdir=str(workdir))


def _job(flags):
  with tempfile.TemporaryDirectory() as folder:
    config = _config(folder, **flags)
    config_lib.check(config)
    return build.make_job(config)


def _run(workdir, flags):
  """Runs to the end in a folder; what came of it."""
  config = _config(workdir, **flags)
  config_lib.check(config)
  runner.run(config, "probe")
  return _outcome(workdir)


def _outcome(workdir):
  """What a run's folder says, without times."""
  rows = [
    {k: v for k, v in json.loads(line).items() if not k.startswith("ms_")}
    for line in (workdir / "metrics.jsonl").read_text().splitlines()
  ]
  summary = json.loads((workdir / "summary.json").read_text())
  kept = ("finished", "num_frames", "num_key_frames", "num_updates")
  kept += ("num_rolled_back", "num_skipped", "miou", "eval_frames", "link")
  kept += ("gmac_per_frame", "speedup_paper_model")
  found = {
    "rows": rows,
    "summary": {name: summary.get(name) for name in kept},
    "masks": _masks(workdir / "masks"),
    "params": _param_hashes(workdir),
  }
  return json.loads(json.dumps(found))


def _masks(folder):
  digest = hashlib.sha256()
  paths = sorted(folder.glob("*.png"))
  for path in paths:
    digest.update(iio.imread(path).tobytes())
  return f"{len(paths)} {digest.hexdigest()}"


def _param_hashes(workdir):
  """By key frame the hashes of all arrays, whatever their names."""
  log = recorded_run.read(workdir).log
  found = {}
  for t, kind in log.records:
    decision = log.find(kind, t).decision
    if decision is not None:
      text = decision.leaf_hashes
      hashes = [text[i : i + 4] for i in range(0, len(text), 4)]
      found[str(t)] = " ".join(sorted(hashes))
  return found


def _program_texts(flags, only=("init", "next_key", "learn", "predict")):
  """The lowered functions of the system that flags describe."""
  job = _job(flags)
  system, spec = job.system, job.stream.spec
  size = spec.height, spec.width
  frame = jax.ShapeDtypeStruct((*size, 3), np.uint8)
  labels = Labels(
    jax.ShapeDtypeStruct(size, np.uint8),
    jax.ShapeDtypeStruct(size, np.float32),
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  state = jax.eval_shape(system.init, key, frame)
  arguments = {
    "init": (key, frame),
    "next_key": (state,),
    "learn": (state, frame, labels),
    "predict": (state, frame),
  }
  return {
    name: normalized(
      jax.jit(getattr(system, name)).lower(*arguments[name]).as_text()
    )
    for name in only
  }


def _programs(flags, only=("init", "next_key", "learn", "predict")):
  return lambda path: {"programs": _program_texts(flags, only)}


def normalized(text):
  """A lowered program without names that mean nothing to a machine."""
  text = re.sub(r'jax\.result_info = "[^"]*"(, )?', "", text)
  text = re.sub(r"(, )?\{\}", "", text)
  # What a callback to the host is called is an address.
  text = re.sub(r'backend_config = "\d+"', "backend_config", text)
  text = re.sub(r"index = \d+ : ui64", "index", text)
  text = re.sub(
    r'dense<"0x([0-9A-F]{64,})">',
    lambda found: f"dense<{hashlib.sha256(found[1].encode()).hexdigest()}>",
    text,
  )
  names = {}

  def rename(found):
    return names.setdefault(found.group(), f"@f{len(names)}")

  return re.sub(r"@[\w.$-]+", rename, text)


def _binary(*words, expect=0):
  """Runs a binary of this tree; what it prints."""
  done = subprocess.run(
    [sys.executable, "-m", *words], capture_output=True, text=True
  )
  if done.returncode != expect:
    raise RuntimeError(f"{' '.join(words)}: {done.returncode} {done.stderr}")
  return done.stdout


def _flag_words(**flags):
  """Flags as a person types them."""
  words = []
  for name, value in flags.items():
    if isinstance(value, bool):
      words.append(f"--{'' if value else 'no'}{name}")
    else:
      words.append(f"--{name}={value}")
  return words


def _play(flags):
  return lambda path: _run(path / "run", flags)


def _prepared(path):
  """A run whose student is trained beforehand, for a tenth of the steps."""
  module = sys.modules["ojd.systems.offline_oracle"]  # the factory hides it
  steps, module._MIN_STEPS = module._MIN_STEPS, 40
  try:
    return _run(path / "run", {"system": "offline_oracle"})
  finally:
    module._MIN_STEPS = steps


def _resumed(path):
  """A run that was killed, and the same command again."""
  flags = _flag_words(**_BASE | _SCHEDULE, workdir=path / "run")
  code = (
    "import sys, os; from ojd.run import loop; "
    "end = lambda self, *a, old=loop.Loop._report_progress: "
    "os._exit(9) if self.next_t >= 22 else old(self, *a); "
    "loop.Loop._report_progress = end; "
    "import runpy; sys.argv[0] = 'online_distill'; "
    "runpy.run_module('experiments.online_distill', run_name='__main__')"
  )
  done = subprocess.run(
    [sys.executable, "-c", code, *flags], capture_output=True, text=True
  )
  if done.returncode != 9:
    raise RuntimeError(f"it was not killed: {done.stderr}")
  _binary("experiments.online_distill", *flags)
  return _outcome(path / "run")


def _replayed(path):
  """A run's replay, its fork, and a sweep of it."""
  _run(path / "run", _SCHEDULE)
  run = f"--workdir={path / 'run'}"
  words = _binary("experiments.replay", run)
  fork = ["--from_frame=16", "--update=adam", f"--fork={path / 'fork'}"]
  _binary("experiments.replay", run, *fork)
  grid = "--sweep=learning_rate=0.003,0.03;a_thresh=0.5,0.9"
  _binary("experiments.replay", run, grid, f"--out={path / 'sweep'}")
  return {
    "is_equal": "bit-equal" in words,
    "fork": _outcome(path / "fork"),
    "sweep": (path / "sweep" / "sweep.csv").read_text().splitlines(),
  }


def _fleet(path):
  """Three streams at once, which share a teacher without a limit."""
  listed = path / "streams.txt"
  listed.write_text(
    "".join(
      f"{scene}, synthetic:{scene}?num_frames={_NUM_FRAMES}\n"
      for scene in ("sports", "street", "park")
    )
  )
  flags = _BASE | _SCHEDULE
  del flags["stream"]
  flags |= dict(
    workdir=path / "fleet", streams=listed, devices=1, student_store="none"
  )
  _binary("experiments.fleet", *_flag_words(**flags))
  streams = path / "fleet" / "streams"
  found = {}
  for folder in sorted(streams.iterdir()):
    found[folder.name] = outcome = _outcome(folder)
    # Streams share a batch as they come, and batches of other sizes round
    # otherwise: what is exact is that all frames were answered.
    outcome["rows"] = [row["t"] for row in outcome["rows"]]
    outcome["summary"] = {
      name: outcome["summary"][name] for name in ("finished", "num_frames")
    }
    del outcome["masks"], outcome["params"]
  return found


def _linked(flags):
  def case(path):
    from ojd.network import messages

    digest, count, encode = hashlib.sha256(), 0, messages.encode

    def recording(*args, **kwargs):
      nonlocal count
      data = encode(*args, **kwargs)
      digest.update(data)
      count += 1
      return data

    messages.encode = recording
    try:
      found = _run(path / "run", flags)
    finally:
      messages.encode = encode
    return found | {"messages": [count, digest.hexdigest()]}

  return case


def _stored(out, name, result):
  """The result, with its programs in files and their hashes in their place."""
  for function, text in result.get("programs", {}).items():
    path = out / f"{name.replace('/', '-')}-{function}.mlir"
    path.write_text(text)
    result["programs"][function] = hashlib.sha256(text.encode()).hexdigest()
  return result


def cases():
  """All cases by name; each takes an empty folder and returns JSON."""
  found = {}
  for name, flags in SYSTEMS.items():
    flags = {"system": name} | flags
    if name in RUNS:
      found[f"run/{name}"] = _play(flags)
    found[f"programs/{name}"] = _programs(flags)
  for name, flags in UPDATES.items():
    flags = {"update": name} | _SCHEDULE | flags
    found[f"updates/{name}"] = _programs(flags, ("init", "learn", "predict"))
  for name, flags in MODELS.items():
    flags = {"model": name, "init": "random"} | _SCHEDULE | flags
    found[f"models/{name}"] = _programs(flags, ("init", "learn", "predict"))
  found["run/tiny_teacher"] = _play(
    _SCHEDULE
    | dict(
      teacher="mask_rcnn_tiny",
      stream=f"synthetic:street?num_frames={_NUM_FRAMES}",
      eval_every=7,
    )
  )
  found["programs/jit_link"] = _programs(_SCHEDULE | _LINK)
  found["link/jit"] = _linked(_SCHEDULE | _LINK)
  found["link/ams"] = _linked({"system": "ams" + _AMS} | _AMS_LINK)
  found["run/offline_oracle"] = _prepared
  found["resumed"] = _resumed
  found["replayed"] = _replayed
  found["fleet"] = _fleet
  return found


def main():
  """Runs the cases that are asked for."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("out", type=pathlib.Path)
  parser.add_argument("--only", default="", help="cases whose name matches")
  args = parser.parse_args()
  compilation.enable_cache(compilation.default_cache())
  os.environ["PYTHONPATH"] = os.getcwd()
  args.out.mkdir(parents=True, exist_ok=True)
  wanted = {n: f for n, f in cases().items() if re.search(args.only, n)}
  found = {}
  begun = time.monotonic()
  for i, (name, case) in enumerate(wanted.items()):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="golden-"))
    try:
      found[name] = _stored(args.out, name, case(folder))
    except Exception as error:
      found[name] = {"error": f"{type(error).__name__}: {error}"}
    finally:
      shutil.rmtree(folder, ignore_errors=True)
    words = found[name].get("error", "")
    spent = time.monotonic() - begun
    print(f"{i + 1}/{len(wanted)} {name} {spent:.0f} s {words}", flush=True)
    jax.clear_caches()
  (args.out / RESULTS).write_text(json.dumps(found))


if __name__ == "__main__":
  main()
