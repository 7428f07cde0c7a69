"""A simulated network between the teacher and the student (`--link`).

The server and the network are simulated in the time of the stream, so that a
run can be replayed. The device takes its frames as they arrive, or as fast as
it can if it is late, and answers each with the student that it has.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ojd.models.pretrained import flatten
from ojd.network import conditions as conditions_lib
from ojd.network import messages, simulation, uplink, weights
from ojd.run import build
from ojd.run import config as config_lib
from ojd.run.sources import AnsweredBy, Example, InStep
from ojd.systems import streamed
from ojd.types import Frame, Sample, StepInfo


class SimulatedNetwork(InStep):
  """A label source: a server labels and trains, a device predicts."""

  needs_readonly = True
  _is_unanswered = False  # whether this key frame gets no labels

  def __init__(self, job: build.Job):
    """Opens the device's end of the network.

    Args:
      job: of a config that has a `link`.
    """
    config, spec = job.config, job.stream.spec
    self._job = job
    self._conditions = conditions_lib.parse(config.link)
    self._remote = build.method_of(config).remote
    self._uplink = open_uplink(job)
    self._send = make_sender(self._uplink, job)
    first = build.first_interval(config, spec)
    self._rules = simulation.Rules(
      spec.fps,
      self._conditions.pace,
      first if self._remote.waits else None,
    )
    network = simulation.init(self._conditions.link, config.seed)
    self._timeline = simulation.Timeline(network)
    # The stride that the device knows.
    self._interval = first
    self._num_saved = 0  # key frames before the last checkpoint

  def begin(self, context):
    super().begin(context)
    stored = context.stats.link
    if stored is not None:
      self._timeline = simulation.load(stored["timeline"])
      self._interval = stored["interval"]
      self._uplink.spare = stored["spare"]
    self._num_saved = context.stats.num_keys
    trains = build.trains_of(self._job.config)
    params = _named(context.executor.state.staged)
    trainable = None if trains is None else trains(params)
    self._sent = weights.Weights(
      params, weights.layout_of(params, trainable), self._timeline.num_updates
    )

  def request(self, sample, record):
    t = self.context.stats.clock
    self._timeline = simulation.begin_frame(self._rules, self._timeline, t)
    if not self.is_due():
      return None, ""
    state = self.context.executor.state
    seen = self._send(sample.frame, state)
    received, record.sent = sample._replace(frame=seen), True
    is_decoded = self._conditions.upload.labels == conditions_lib.DECODED
    labels, problem = self.ask(received if is_decoded else sample, record)
    self._is_unanswered = bool(problem)
    if labels is None:
      return None, problem
    return Example(received, labels, AnsweredBy.BEFORE), ""

  def learned(self, info: StepInfo, record) -> int | None:
    """Sends the update; returns the frames until the device has it."""
    self._send_frames(info, record)
    t, executor = self.context.stats.clock, self.context.executor
    if self._timeline.arrival > t:
      return None  # one is on its way; the next update includes this one
    params = _named(executor.state.staged)
    interval = int(executor.state.staged_interval)
    chosen = weights.changed(self._sent, params, self._remote.dtype)
    is_same = isinstance(chosen, np.ndarray) and not chosen.any()
    if is_same and interval == self._interval:
      return None
    update, self._sent = weights.advance(
      *(self._sent, params, chosen),
      dtype=self._remote.dtype,
      schedule=messages.Schedule(stride=interval),
    )
    self._interval, record.bytes_down = interval, len(messages.encode(update))
    self._timeline, delay = simulation.send_update(
      self._rules, self._timeline, t, record.bytes_down
    )
    executor.replace(streamed.postpone(executor.state, delay))
    record.staleness = delay
    return delay

  def predicted(self, answer, record):
    # The device counts from its last key frame, with the stride it knew then.
    if self._is_unanswered:
      super().predicted(answer, record)
      self._is_unanswered = False

  def _send_frames(self, info, record):
    """Sends the frames of a training round to the server."""
    num_updates = info.num_updates + info.num_rolled_back
    if self._remote.is_batched and not num_updates:
      return
    frames = self._uplink.flush()
    record.bytes_up = len(messages.encode(frames))
    self._timeline = simulation.send_frames(
      *(self._rules, self._timeline, record.bytes_up),
      *(len(frames.times), num_updates),
    )
    if self._uplink.spare is not None:
      record.spare = self._uplink.spare

  def is_checkpoint_due(self, every):
    num_keys = self.context.stats.num_keys - self._num_saved
    return 0 < every <= num_keys and self.can_pause()

  def can_pause(self):
    return self._uplink.is_empty  # a run cannot resume in the middle of a clip

  def dump(self):
    self._num_saved = self.context.stats.num_keys
    return {
      "timeline": simulation.dump(self._timeline),
      "interval": self._interval,
      "spare": self._uplink.spare,
    }

  def summary(self) -> dict[str, Any]:
    """The statistics of the network, for summary.json."""
    clock = self.context.stats.clock if self.context else 0
    return {"link": simulation.summary(self._rules, self._timeline, clock)}


def open_uplink(job: build.Job) -> uplink.Uplink:
  """Makes the encoder of the key frames of a job."""
  upload = conditions_lib.parse(job.config.link).upload
  codec = upload.codec or build.method_of(job.config).remote.codec
  spec = job.stream.spec
  return uplink.Uplink(upload._replace(codec=codec), spec.height, spec.width)


def make_sender(
  device: uplink.Uplink, job: build.Job
) -> Callable[[Frame, streamed.StreamedState], np.ndarray]:
  """Returns (frame, state) -> the key frame as the server will decode it."""
  fps = job.stream.spec.fps
  options = config_lib.bound_system(job.config).options
  most = options.get("sampling_rate", 1.0)

  def send(frame, state):
    rate = min(fps / max(int(state.interval), 1), most)
    device.add(frame, int(state.t) / fps, rate)
    return device.seen()

  return send


class ReplayedUplink:
  """Replays the key frames of a run as its server decoded them."""

  def __init__(self, rows: list[dict[str, Any]], job: build.Job, start: int):
    """Starts where no frame waits to be sent, as at every checkpoint.

    Args:
      rows: of metrics.jsonl.
      job: of the run.
      start: the first frame.
    """
    self._rows = {row["t"]: row for row in rows}
    self._uplink = open_uplink(job)
    self._send = make_sender(self._uplink, job)
    spares = [
      row["spare"] for row in rows if "spare" in row and row["t"] < start
    ]
    self._uplink.spare = spares[-1] if spares else None

  def receive(self, sample: Sample, state: streamed.StreamedState) -> Sample:
    """The sample; if it was sent, as the server decoded it."""
    row = self._rows.get(sample.t, {})
    if row.get("sent"):
      frame = self._send(sample.frame, state)
      sample = sample._replace(frame=frame)
    if "bytes_up" in row:
      self._uplink.flush()
    return sample


def _named(params):
  return {n: np.array(x, np.float32) for n, x in flatten(params).items()}
