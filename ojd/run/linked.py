"""`--link`: the host loop with a network between the teacher and the student.

The server's work and the network are reckoned in the stream's time, so that a
run can be told again. A device goes through its frames as they come, or as fast
as it can where it is behind; it answers each with the student that it holds.
"""

from typing import Any

import numpy as np

from ojd.models.pretrained import flatten
from ojd.network import conditions as conditions_lib
from ojd.network import (
  difference,
  layout,
  simulation,
  uplink,
  weights,
  wire,
)
from ojd.network import link as link_lib
from ojd.run import config as config_lib
from ojd.run import job as job_lib
from ojd.run import loop
from ojd.systems import streamed
from ojd.types import Frame, Sample, StepInfo


class LinkLoop(loop.Loop):
  """A run whose student is on a device, and whose teacher is on a server."""

  needs_peek = True

  def __init__(self, job: job_lib.Job, *args, **kwargs):
    """Takes what a Loop takes."""
    super().__init__(job, *args, **kwargs)
    config, spec = job.config, job.stream.spec
    self._conditions = conditions_lib.parse(config.link)
    self._remote = job_lib.method_of(config).remote
    self._uplink = open_uplink(job)
    first = job_lib.first_interval(config, spec)
    self._rules = simulation.Rules(
      spec.fps,
      self._conditions.pace,
      first if self._remote.waits else None,
    )
    network = link_lib.init(self._conditions.link, config.seed)
    self._course = simulation.Course(network)
    # Frames from key to key, as the device was told.
    self._interval = first
    if self.stats.link is not None:
      self._load(self.stats.link)
    self._num_kept = self.stats.num_keys  # key frames in the last checkpoint
    self._received: Sample | None = None

  def _load(self, content):
    self._course = simulation.load(content["course"])
    self._interval = content["interval"]
    self._uplink.spare = content["spare"]

  def _dump(self):
    return {
      "course": simulation.dump(self._course),
      "interval": self._interval,
      "spare": self._uplink.spare,
    }

  def _compile(self):
    super()._compile()
    trains = job_lib.trains_of(self.job.config)
    params = _named(self.state.staged)
    trainable = None if trains is None else trains(params)
    self._sent = weights.Weights(
      params, layout.layout_of(params, trainable), self._course.num_updates
    )

  def _step(self, sample, line):
    t = self.stats.clock
    self._course = simulation.begin_frame(self._rules, self._course, t)
    return super()._step(sample, line)

  def _ask_teacher(self, sample, line, stage="teacher"):
    if stage == "teacher":
      seen = add_to(self._uplink, self.job, sample.frame, self.state)
      self._received, line["sent"] = sample._replace(frame=seen), True
      if self._conditions.upload.labels == conditions_lib.DECODED:
        sample = self._received
    return super()._ask_teacher(sample, line, stage)

  def _learn(self, sample, labels, line):
    # The device answers before it hears anything of this frame.
    with self.stages("predict"):
      classes = np.asarray(self.system.peek(self.state, sample.frame))
    line["ms_predict"] = self.stages.milliseconds("predict")
    _, info = super()._learn(self._received, labels, line)
    return classes, info

  def _pass_on(self, info: StepInfo, line):
    """Sends what was learnt; the frames until the device holds it."""
    self._send_frames(info, line)
    t = self.stats.clock
    if self._course.arrival > t:
      return None  # one is on its way; this goes with the next
    params = _named(self.state.staged)
    interval = int(self.state.staged_interval)
    chosen = difference.choose(self._sent, params, self._remote.dtype)
    is_same = isinstance(chosen, np.ndarray) and not chosen.any()
    if is_same and interval == self._interval:
      return None
    update, self._sent = weights.advance(
      *(self._sent, params, chosen),
      dtype=self._remote.dtype,
      schedule=weights.Schedule(stride=interval),
    )
    self._interval, num_bytes = interval, len(wire.encode(update))
    self._course, delay = simulation.send_update(
      self._rules, self._course, t, num_bytes
    )
    self.state = streamed.postpone(self.state, delay)
    line.update(bytes_down=num_bytes, staleness=delay)
    return delay

  def _send_frames(self, info, line):
    """Sends the frames of a lesson up, and lets the server work on them."""
    num_updates = info.num_updates + info.num_rolled_back
    if self._remote.is_batched and not num_updates:
      return
    num_frames, message = self._uplink.flush()
    self._course = simulation.send_frames(
      *(self._rules, self._course, len(message), num_frames, num_updates)
    )
    line["bytes_up"] = len(message)
    if self._uplink.spare is not None:
      line["spare"] = self._uplink.spare

  def _is_checkpoint_due(self):
    # In the middle of a clip nothing could go on.
    every, num_keys = self.job.config.checkpoint_every, self.stats.num_keys
    return 0 < every <= num_keys - self._num_kept and self._uplink.is_empty

  def _keep(self):
    if self._uplink.is_empty:
      self.stats.link = self._dump()
      super()._keep()
      self._num_kept = self.stats.num_keys

  def summary(self):
    """That of a Loop, and what went over the network."""
    link = simulation.summary(self._rules, self._course, self.stats.clock)
    return super().summary() | {"link": link}


def open_uplink(job: job_lib.Job) -> uplink.Uplink:
  """How the key frames of a job travel."""
  upload = conditions_lib.parse(job.config.link).upload
  codec = upload.codec or job_lib.method_of(job.config).remote.codec
  spec = job.stream.spec
  return uplink.Uplink(upload._replace(codec=codec), spec.height, spec.width)


def add_to(
  device: uplink.Uplink,
  job: job_lib.Job,
  frame: Frame,
  state: streamed.StreamedState,
) -> np.ndarray:
  """What the server will see of a key frame, at which the state is."""
  fps = job.stream.spec.fps
  rate = fps / max(int(state.interval), 1)
  options = config_lib.bound_system(job.config).options
  rate = min(rate, options.get("sampling_rate", 1.0))
  return device.add(frame, int(state.t) / fps, rate)


class Retold:
  """The key frames of a run over a link as its server saw them."""

  def __init__(self, rows: list[dict[str, Any]], job: job_lib.Job, start: int):
    """Begins where no frame waits to be sent, as at every checkpoint.

    Args:
      rows: of metrics.jsonl.
      job: of the run.
      start: the first frame.
    """
    self._rows = {row["t"]: row for row in rows}
    self._job, self._uplink = job, open_uplink(job)
    spares = [
      row["spare"] for row in rows if "spare" in row and row["t"] < start
    ]
    self._uplink.spare = spares[-1] if spares else None

  def see(self, sample: Sample, state: streamed.StreamedState) -> Sample:
    """The sample, as it arrived if it was sent."""
    row = self._rows.get(sample.t, {})
    if row.get("sent"):
      frame = add_to(self._uplink, self._job, sample.frame, state)
      sample = sample._replace(frame=frame)
    if "bytes_up" in row:
      self._uplink.flush()
    return sample


def _named(params):
  return {n: np.array(x, np.float32) for n, x in flatten(params).items()}
