"""A device at work: every frame is segmented with the newest weights at hand.

metrics.jsonl has a line a frame: `t`, `is_key` (it was offered to the server),
`ms_predict`, the `version` of the weights, `staleness`, which is the frames
since the latest key frame that they may know of (missing before there is one),
and `eval_miou` where the stream has labels.
"""

import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from ojd import labels, metrics
from ojd.edge import student as student_lib
from ojd.edge.client import Client, Picture
from ojd.edge.device import ServedWeights
from ojd.network.weights import Params
from ojd.run import workdir, writers
from ojd.streams import base as streams
from ojd.streams import prefetch
from ojd.types import Frame, Sample, check_frame

# (parameters on the device, frame) -> classes [H, W] uint8
Answer = Callable[[Any, Frame], jax.Array]


class Staged(NamedTuple):
  """Weights where the student runs, ready to be taken between two frames."""

  params: Any
  version: int
  key_t: int | None


class Stage:
  """Where whoever receives weights leaves them, and the player finds them."""

  def __init__(self, put: Callable[[Params], Any]):
    """`put` brings arrays by name to the device, in the thread that receives.

    The latest is one reference: it is exchanged in one step.
    """
    self._put = put
    self.latest: Staged | None = None

  def __call__(self, served: ServedWeights) -> None:
    params = jax.block_until_ready(self._put(served.held.params))
    self.latest = Staged(params, served.held.version, served.key_t)


class Pace(NamedTuple):
  """How fast frames are taken, and who is waited for."""

  is_real_time: bool = False  # a file at its own rate
  wait_after: int | None = None  # frames since a key frame; None: never
  wait_seconds: float = 60.0


class Totals:
  """The counts of a stream in progress."""

  def __init__(self, num_classes: int):
    self.num_frames = self.num_keys = self.num_skipped = 0
    self.eval_frames = 0
    self.confusion = np.zeros((num_classes, num_classes), np.int64)
    self.staleness: list[int] = [0, 0, 0]  # frames, sum, greatest
    self.seconds = {"predict": 0.0, "wait": 0.0, "total": 0.0}

  def stale(self, num: int) -> None:
    """Counts a frame whose weights are so many frames old."""
    count, total, most = self.staleness
    self.staleness = [count + 1, total + num, max(most, num)]

  @property
  def fps(self) -> float:
    """Frames a second, with all that goes with them."""
    total = self.seconds["total"]
    return self.num_frames / total if total else 0.0

  def miou(self) -> float | None:
    """Of the frames so far; None where nothing was compared."""
    return metrics.run_miou(self.confusion) if self.eval_frames else None


class Player:
  """Plays a stream on a device, whatever its server does."""

  def __init__(
    self,
    stream: streams.Stream,
    groups: labels.ClassGroups,
    answer: Answer,
    stage: Stage,
    client: Client,
    path: pathlib.Path,
    *,
    num_frames: int | None = None,
    pace: Pace = Pace(),  # noqa: B008, a constant
    should_stop: Callable[[], bool] = lambda: False,
    progress_fn: Callable[["Player"], None] = lambda player: None,
  ):
    """Does nothing yet.

    Args:
      stream: of the frames.
      groups: what the student tells apart.
      answer: how it answers; compiled at its first call.
      stage: of the weights; holds the first ones.
      client: of the server.
      path: a folder for metrics.jsonl and summary.json.
      num_frames: at most; None: to the end.
      pace: how fast.
      should_stop: asked before every frame.
      progress_fn: called after every frame.
    """
    self._stream, self._groups, self._answer = stream, groups, answer
    self._stage, self.client, self._path = stage, client, path
    self.num_frames, self._pace = num_frames, pace
    self._should_stop, self._progress = should_stop, progress_fn
    self.totals = Totals(len(groups.names))
    names = stream.spec.class_names
    wanted = {name for members in groups.members for name in members}
    is_judged = not wanted.isdisjoint(names)
    self._truth = labels.match_groups(groups, names) if is_judged else None
    self._stopped = threading.Event()
    self._start = self._began = 0.0

  @property
  def stream_frames(self) -> int | None:
    """Frames of the whole stream; None where the end is not known."""
    return self._stream.spec.num_frames

  def run(self) -> dict[str, Any]:
    """Plays to the end; whatever happens, writes the summary."""
    is_over = False
    file = writers.MetricsWriter(self._path / workdir.METRICS)
    try:
      for sample in self._samples():
        self._take(sample, file)
      is_over = not (self._should_stop() or self.client.refusal)
      if not self.totals.num_frames and is_over:
        raise RuntimeError("no frame of the stream could be read")
    finally:
      file.close()
      self.client.close()
      summary = self.summary(is_over)
      workdir.write_json(self._path / workdir.SUMMARY, summary)
    return summary

  def _samples(self) -> Iterator[Sample]:
    """The frames, until somebody does not want any more."""
    is_live = self._stream.spec.is_live
    samples = prefetch.Prefetcher(
      self._stream.read(),
      1 if is_live else prefetch.DEPTH,
      self._should_stop,
      lambda: streams.close(self._stream),
    )
    try:
      self._warm_up()
      for sample in samples:
        limit = self.num_frames
        if limit is not None and sample.t >= limit:
          return
        if self._should_stop() or self.client.refusal:
          return
        if sample.frame is None:
          self.totals.num_skipped += 1
          continue
        yield sample
        if limit is not None and sample.t + 1 >= limit:
          return
    finally:
      samples.close()

  def _warm_up(self):
    """Compiles before the first frame; then the server is called."""
    spec = self._stream.spec
    blank = np.zeros((spec.height, spec.width, 3), np.uint8)
    jax.block_until_ready(self._answer(self._stage.latest.params, blank))
    self.client.start()
    self._start = self._began = time.perf_counter()

  def _take(self, sample, file):
    """One frame, from the stream to the last file."""
    check_frame("the stream's frame", sample.frame)
    fps = self._stream.spec.fps
    self._wait(sample.t, fps)
    staged = self._stage.latest
    begin = time.perf_counter()
    frame = jax.device_put(sample.frame)
    classes = jax.device_get(self._answer(staged.params, frame))
    spent = time.perf_counter() - begin
    picture = Picture(sample.t, sample.t / fps, sample.frame)
    is_key = self.client.offer(picture)
    line = {
      "t": sample.t,
      "is_key": is_key,
      "ms_predict": round(1e3 * spent, 3),
      "version": staged.version,
    }
    if staged.key_t is not None:
      line["staleness"] = sample.t - staged.key_t
      self.totals.stale(line["staleness"])
    self._judge(sample, classes, line)
    self.totals.num_frames += 1
    self.totals.num_keys += is_key
    self.totals.seconds["predict"] += spent
    self.totals.seconds["total"] = time.perf_counter() - self._start
    file.write(line)
    self._progress(self)

  def _wait(self, t, fps):
    pace, begin = self._pace, time.perf_counter()
    if pace.is_real_time and not self._stream.spec.is_live:
      self._stopped.wait(max(0.0, self._began + t / fps - begin))
    if pace.wait_after is not None:
      begin = time.perf_counter()
      self.client.wait(t, pace.wait_after, pace.wait_seconds)
      self.totals.seconds["wait"] += time.perf_counter() - begin

  def _judge(self, sample, classes, line):
    if self._truth is None or sample.truth is None:
      return
    truth = np.take(self._truth.lookup, sample.truth)
    num = len(self._groups.names)
    confusion = metrics.confusion_matrix(truth, np.asarray(classes), num)
    line["eval_miou"] = metrics.run_miou(confusion)
    self.totals.confusion += confusion
    self.totals.eval_frames += 1

  def summary(self, is_over: bool) -> dict[str, Any]:
    """The content of summary.json."""
    totals, client = self.totals, self.client
    counts, device = client.counts, client.device.counts
    count, total, most = totals.staleness
    seconds = max(totals.seconds["total"], 1e-9)
    per_class = metrics.iou_per_class(totals.confusion)
    names = self._groups.names
    return {
      "finished": is_over,
      "num_frames": totals.num_frames,
      "num_skipped": totals.num_skipped,
      "fps": round(totals.fps, 3),
      "ms_predict": _mean(1e3 * totals.seconds["predict"], totals.num_frames),
      "num_key_frames": counts.num_keys,
      "num_replaced": counts.num_replaced,
      "num_updates": device.num_updates,
      "num_whole_updates": device.num_whole,
      "version": client.device.held.version,
      "bytes_up": counts.bytes_up,
      "bytes_down": counts.bytes_down,
      "kbps_up": round(8e-3 * counts.bytes_up / seconds, 3),
      "kbps_down": round(8e-3 * counts.bytes_down / seconds, 3),
      "num_connects": device.num_welcomes,
      "num_reconnects": max(0, device.num_welcomes - 1),
      "num_problems": counts.num_problems,
      "rtt_ms": device.rtt_ms,
      "staleness": {"mean": _mean(total, count), "max": most},
      "seconds": {name: round(s, 4) for name, s in totals.seconds.items()},
      "refusal": client.refusal,
      "eval_frames": totals.eval_frames,
      "miou": {
        "mean": totals.miou(),
        "per_class": {
          name: None if np.isnan(iou) else float(iou)
          for name, iou in list(zip(names, per_class, strict=True))[1:]
        },
      },
    }


def _mean(total, count):
  return round(total / count, 3) if count else None


def student_stage(
  answer: Answer, first: Params, version: int = 0
) -> tuple[Answer, Stage]:
  """A student that runs here, by `System.answer`, and its first weights."""
  put = lambda named: jax.device_put(student_lib.unflatten(named))
  stage = Stage(put)
  stage.latest = Staged(put(first), version, None)
  return jax.jit(answer), stage


def program_stage(
  program: Callable[..., jax.Array], first: Params, version: int = 0
) -> tuple[Answer, Stage]:
  """The same of a program that was exported (`ojd.models.export`)."""
  stage = Stage(lambda named: jax.device_put(dict(named)))
  stage.latest = Staged(jax.device_put(dict(first)), version, None)
  return lambda params, frame: program(params, frame[None])[0], stage
