"""`--link`: the host loop with a network between the teacher and the student.

The server's work and the network are reckoned in the stream's time, so that a
run can be told again. A device goes through its frames as they come, or as fast
as it can where it is behind; it answers each with the student that it holds.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ojd import systems, updates
from ojd.edge import conditions as conditions_lib
from ojd.edge import difference, layout, uplink, weights, wire
from ojd.edge import link as link_lib
from ojd.models.pretrained import flatten
from ojd.run import job as job_lib
from ojd.run import loop
from ojd.schedule import NEVER
from ojd.systems import streamed
from ojd.types import Frame, Sample, StepInfo


class Course(NamedTuple):
  """What has happened between the two ends; JSON, as `Tally.link` keeps it."""

  network: dict[str, Any]  # of `link.dump`
  clock: float = 0.0  # seconds of the stream, on the device
  waited: float = 0.0  # seconds that the device stood still
  server_free: float = 0.0  # when the server has done what it was sent
  arrival: int = 0  # the frame on which what was sent last is held
  wait_frame: int = -1  # before which the device waits
  wait_until: float = 0.0  # for this moment
  interval: int = 0  # that the device knows of, frames from key to key
  spare: int | None = None  # of the bytes for clips
  num_updates: int = 0  # that were sent
  staleness: int = 0  # frames from key to arrival, of all together
  max_staleness: int = 0


class LinkLoop(loop.Loop):
  """A run whose student is on a device, and whose teacher is on a server."""

  needs_peek = True

  def __init__(self, job: job_lib.Job, *args, **kwargs):
    """Takes what a Loop takes."""
    super().__init__(job, *args, **kwargs)
    config = job.config
    self._conditions = conditions_lib.parse(config.link)
    self._remote = systems.find(config.system).remote
    self._uplink = open_uplink(job)
    network = link_lib.init(self._conditions.link, config.seed)
    first = Course(
      link_lib.dump(network),
      interval=job_lib.first_interval(config, job.stream.spec),
    )
    self._course = Course(**(self.tally.link or first._asdict()))
    self._uplink.spare = self._course.spare
    self._network = link_lib.load(self._course.network)
    self._num_kept = self.tally.num_keys  # key frames in the last checkpoint
    self._received: Sample | None = None

  def _compile(self):
    super()._compile()
    trains = updates.as_step(job_lib.make_step(self.job.config)).trains
    params = _named(self.state.staged)
    trainable = None if trains is None else trains(params)
    self._sent = weights.Weights(
      params, layout.layout_of(params, trainable), self._course.num_updates
    )

  def _step(self, sample, line):
    self._begin_frame()
    step = super()._step(sample, line)
    network = link_lib.dump(self._network)
    self.tally.link = self._course._replace(network=network)._asdict()
    return step

  def _begin_frame(self):
    """Moves the device's clock to its next frame."""
    course, t = self._course, self.tally.clock
    clock, waited = self._clock_at(t, t - 1 if t else 0), course.waited
    if t == course.wait_frame:
      waited += max(0.0, course.wait_until - clock)
      clock = max(clock, course.wait_until)
    self._course = course._replace(clock=clock, waited=waited)

  def _clock_at(self, t, now):
    """When the device comes to frame t, if it is at frame `now`."""
    busy = (t - now) * self._seconds("device_ms")
    return max(self._course.clock + busy, t / self.job.stream.spec.fps)

  def _seconds(self, name):
    return 1e-3 * getattr(self._conditions.pace, name)

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
    if self._course.arrival > self.tally.clock:
      return None  # one is on its way; this goes with the next
    params, interval = (
      _named(self.state.staged),
      int(self.state.staged_interval),
    )
    chosen = difference.choose(self._sent, params, self._remote.dtype)
    is_same = isinstance(chosen, np.ndarray) and not chosen.any()
    if is_same and interval == self._course.interval:
      return None
    update, self._sent = weights.advance(
      *(self._sent, params, chosen),
      dtype=self._remote.dtype,
      schedule=weights.Schedule(stride=interval),
    )
    self._course = self._course._replace(interval=interval)
    delay = self._send_down(wire.encode(update), line)
    self.state = streamed.postpone(self.state, delay)
    return delay

  def _send_frames(self, info, line):
    """Sends the frames of a lesson up, and lets the server work on them."""
    num_updates = info.num_updates + info.num_rolled_back
    if self._remote.is_batched and not num_updates:
      return
    num_frames, message = self._uplink.flush()
    self._network, arrival = link_lib.send(
      self._network, link_lib.UP, len(message), self._course.clock
    )
    busy = num_frames * self._seconds("teacher_ms")
    busy += num_updates * self._seconds("update_ms")
    free = max(arrival, self._course.server_free) + busy
    self._course = self._course._replace(
      server_free=free, spare=self._uplink.spare
    )
    line["bytes_up"] = len(message)
    if self._uplink.spare is not None:
      line["spare"] = self._uplink.spare

  def _send_down(self, message, line):
    """Sends an update; the frames until the device holds it."""
    course, t = self._course, self.tally.clock
    leaves = max(course.clock, course.server_free)
    self._network, there = link_lib.send(
      self._network, link_lib.DOWN, len(message), leaves
    )
    frame = self._frame_at(there)
    latest = t + self.job.config.delta_min
    if self._remote.waits and frame > latest:
      frame = latest
      course = course._replace(wait_frame=frame, wait_until=there)
    self._course = course._replace(
      arrival=frame,
      num_updates=course.num_updates + 1,
      staleness=course.staleness + frame - t,
      max_staleness=max(course.max_staleness, frame - t),
    )
    line.update(bytes_down=len(message), staleness=frame - t)
    return frame - t

  def _frame_at(self, moment):
    """The first frame to come that the device does not begin before."""
    t, device = self.tally.clock, self._seconds("device_ms")
    frame = math.ceil(moment * self.job.stream.spec.fps)
    if device:
      behind = (moment - self._course.clock) / device
      frame = min(frame, t + math.ceil(behind))
    frame = min(max(frame, t + 1), NEVER - 1)
    while frame < NEVER - 1 and self._clock_at(frame, t) < moment:
      frame += 1  # what rounding has taken
    return frame

  def _is_checkpoint_due(self):
    # In the middle of a clip nothing could go on.
    every, num_keys = self.job.config.checkpoint_every, self.tally.num_keys
    return 0 < every <= num_keys - self._num_kept and self._uplink.is_empty

  def _keep(self):
    if self._uplink.is_empty:
      super()._keep()
      self._num_kept = self.tally.num_keys

  def summary(self):
    """That of a Loop, and what went over the network."""
    return super().summary() | {"link": self._link_summary()}

  def _link_summary(self):
    course, network = self._course, self._network
    seconds = course.clock + self._seconds("device_ms")
    seconds = max(seconds, self.tally.clock / self.job.stream.spec.fps)
    kbps = lambda line: 8e-3 * line.num_bytes / seconds if seconds else 0.0
    num = course.num_updates
    return {
      "seconds": round(seconds, 3),
      "fps": round(self.tally.clock / seconds, 3) if seconds else 0.0,
      "up_bytes": network.up.num_bytes,
      "down_bytes": network.down.num_bytes,
      "resent_bytes": network.up.num_resent + network.down.num_resent,
      "up_kbps": round(kbps(network.up), 3),
      "down_kbps": round(kbps(network.down), 3),
      "num_updates": num,
      "mean_staleness": round(course.staleness / num, 3) if num else None,
      "max_staleness": course.max_staleness,
      "waited_seconds": round(course.waited, 3),
    }


def open_uplink(job: job_lib.Job) -> uplink.Uplink:
  """How the key frames of a job travel."""
  upload = conditions_lib.parse(job.config.link).upload
  codec = upload.codec or systems.find(job.config.system).remote.codec
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
  rate = min(rate, job.config.sampling_rate)
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
