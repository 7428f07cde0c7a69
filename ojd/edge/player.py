"""A device at work: it segments every frame with the newest weights.

metrics.jsonl has a line a frame: `t`, `is_key` (it was offered to the server),
`ms_predict`, the `version` of the weights, `staleness`, which is the frames
since the latest key frame that they may know of (missing before there is one),
and `eval_miou` where the stream has labels.
"""

import dataclasses
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from ojd import labels, metrics
from ojd.edge import student as student_lib
from ojd.edge.access import Dial, Timing
from ojd.edge.client import Client, Picture
from ojd.edge.device import Device
from ojd.errors import UserError
from ojd.labels import ClassGroups
from ojd.models import export, pretrained
from ojd.network.conditions import Upload
from ojd.network.messages import JPEG, Terms
from ojd.network.uplink import Uplink
from ojd.network.weights import Weights, layout_of
from ojd.run import build, workdir, writers
from ojd.run.config import RunConfig
from ojd.streams import base as streams
from ojd.streams import prefetch
from ojd.systems.jit import serve_fn
from ojd.tasks import segmentation
from ojd.types import Sample, check_frame


class Pace(NamedTuple):
  """How fast frames are played, and whether the device waits for updates."""

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
    """Counts a frame by the age of its weights in frames."""
    count, total, most = self.staleness
    self.staleness = [count + 1, total + num, max(most, num)]

  @property
  def fps(self) -> float:
    """Frames a second, of the whole loop."""
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
    answer: student_lib.Answer,
    stage: student_lib.Stage,
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
      groups: the student's classes.
      answer: the serving function; compiled at its first call.
      stage: of the weights, with the first ones.
      client: the connection to the server.
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
    """Plays to the end, and writes the summary in any case."""
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
    """The frames, until `should_stop` or `num_frames`."""
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
    """Compiles before the first frame; then connects to the server."""
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


class Settings(NamedTuple):
  """Settings of a device beside the flags of a run."""

  dial: Dial
  codec: str = JPEG
  kbps: float = 200.0  # of clips
  program: str = ""  # a file; empty: this package's student
  pace: Pace = Pace()
  patience: float = 30.0  # seconds until an answer is not waited for
  timing: Timing = Timing()


def make_player(
  config: RunConfig,
  settings: Settings,
  *,
  note_fn: Callable[[str], None] = lambda line: None,
  **options: Any,
) -> Player:
  """Opens the stream of a checked config and makes its student.

  Args:
    config: of the stream and the student.
    settings: of the device.
    note_fn: called with a line about the network, from any thread.
    **options: of the `Player`.
  """
  stream = build.open_stream(config)
  spec = stream.spec
  groups = student_lib.groups_of(_classes(config, spec))
  student = build.make_student(config, groups)
  first = student_lib.first_weights(student, config.seed)
  if settings.program:
    program = export.load(settings.program)
    answer, stage = student_lib.program_stage(program, first)
  else:
    serve = serve_fn(student, segmentation(student.num_classes))
    answer, stage = student_lib.student_stage(serve, first)
  terms = Terms(
    *(spec.height, spec.width, spec.fps, settings.codec),
    student_lib.classes_text(groups),
  )
  device = Device(Weights(first, layout_of(first)), terms, stage)
  upload = Upload(codec=settings.codec, kbps=settings.kbps)
  client = Client(
    device,
    settings.dial,
    Uplink(upload, spec.height, spec.width),
    timing=settings.timing,
    patience=settings.patience,
    note_fn=note_fn,
  )
  path = _open_workdir(config, settings, groups, spec)
  return Player(
    *(stream, groups, answer, stage, client, path),
    num_frames=config.num_frames,
    pace=settings.pace,
    **options,
  )


def _classes(config: RunConfig, spec: streams.StreamSpec) -> str:
  """The classes: as asked for, else the stream's, else the first weights'."""
  text = config.classes.strip() or spec.default_classes
  if text:
    return text
  names = spec.class_names
  if config.init != "random":
    given = pretrained.load(build.init_path(config))
    names = given.class_names or names
  if len(names) < 2:
    raise UserError("--classes is missing: give those of the server")
  return ";".join(names[1:])


def check_workdir(config: RunConfig) -> pathlib.Path:
  """The folder of a run; a UserError if it holds one already."""
  path = workdir.expand(config.workdir)
  if any((path / n).exists() for n in (workdir.CONFIG, workdir.METRICS)):
    raise UserError(
      f"--workdir={config.workdir} holds a run already; name another folder"
    )
  return path


def _open_workdir(config, settings, groups: ClassGroups, spec) -> pathlib.Path:
  """A folder that holds no run yet, with this one's config.json."""
  path = check_workdir(config)
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
      f"--workdir={config.workdir} cannot be written: {error.strerror}"
    ) from None
  given = dataclasses.asdict(config)
  given["stream"] = streams.without_password(config.stream)
  about = {
    "flags": given,
    "server": settings.dial.url,
    "codec": settings.codec,
    "program": settings.program,
    "stream": spec.identity,
    "class_names": list(groups.names),
    "versions": workdir.versions(),
  }
  workdir.create(path, about)
  return path
