"""The live view of a run that others watch.

viewers_16_vs_1
    milliseconds from one picture to the next for each of 16 viewers, over those
    for one alone (paint 15 times a second at most)
watched_vs_alone
    the display's part of a frame in the run's thread with 16 viewers, over that
    with none
"""

import contextlib
import http.client
import multiprocessing
import threading
import time

import numpy as np

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Case
from ojd.run import overlay, stats
from ojd.run.runner import About
from ojd.serve.server import LiveView

_NUM_VIEWERS = 16
_SECONDS = 3.0
_FRAME_SECONDS = 1 / 60  # of the made-up run


@contextlib.contextmanager
def _running(size):
  """A view of a run, and the milliseconds that each frame costs it there."""
  rng = np.random.default_rng(0)
  blocks = rng.integers(0, 256, (8, size[0] // 8, size[1] // 8, 3), np.uint8)
  frames = np.kron(blocks, np.ones((1, 8, 8, 1), np.uint8))
  classes = np.zeros(frames.shape[1:3], np.uint8)
  view, over, spent = LiveView("127.0.0.1:0"), threading.Event(), []
  view.display.begin(About("made up", "jit", ("background", "person")), ())
  counted, stages = stats.RunStats.empty(2), stats.Stages()

  def run():
    t = 0
    while not over.wait(_FRAME_SECONDS):
      caption = overlay.Caption(t, t % 8 == 0, 1, 8, 0.5, "teacher", t / 25)
      images = overlay.FrameImages(frames[t % 8], None, classes, caption)
      start = time.perf_counter()
      view.display.line({"t": t, "stride": 8, "eval_miou": 0.5})
      view.display.put(images)
      view.display.progress(counted.progress(stages, None))
      spent.append(1e3 * (time.perf_counter() - start))
      t += 1

  thread = threading.Thread(target=run)
  thread.start()
  try:
    yield view, spent
  finally:
    over.set()
    thread.join()
    view.close()


def _watch(port, num_viewers, result):
  """Milliseconds from picture to picture, of the slowest of some viewers."""
  counts = [0] * num_viewers

  def look(i):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/overlay.mjpg")
    answer, end = connection.getresponse(), time.monotonic() + _SECONDS
    while time.monotonic() < end:
      counts[i] += answer.readline().startswith(b"Content-Length")
    connection.close()

  threads = [
    threading.Thread(target=look, args=(i,)) for i in range(num_viewers)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  result.send(1e3 * _SECONDS / max(1, min(counts)))


def _watched(size, num_viewers):
  """Milliseconds of the slowest viewer's picture and of the run's frame."""
  with _running(size) as (view, spent):
    port = int(view.url.rstrip("/").rpartition(":")[2])
    mine, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
    words = (port, num_viewers, theirs)
    # A process of its own: viewers are on other machines.
    child = multiprocessing.get_context("spawn").Process(
      target=_watch, args=words
    )
    child.start()
    ms = mine.recv()
    child.join()
    return ms, float(np.median(spent))


def viewers(at):
  """Pictures of many viewers beside those of one."""
  pairs = [
    (_watched(at.size, _NUM_VIEWERS)[0], _watched(at.size, 1)[0])
    for _ in range(at.repeats)
  ]
  rates = 1e3 / np.median(pairs, axis=0)
  note = f"{rates[0]:.1f} pictures/s with {_NUM_VIEWERS}, {rates[1]:.1f} with 1"
  return measure.of_pairs("viewers_16_vs_1", pairs, f"{note}, {at.size_text}")


def watched(at):
  """What the display costs the run with viewers beside without."""
  pairs = []
  for _ in range(at.repeats):
    with _running(at.size) as (_, spent):
      time.sleep(_SECONDS)
    pairs.append((_watched(at.size, _NUM_VIEWERS)[1], float(np.median(spent))))
  note = f"a frame's time for the display, {_NUM_VIEWERS} viewers and none"
  return measure.of_pairs("watched_vs_alone", pairs, f"{note}, {at.size_text}")


CASES = [Case(viewers, measure.SMALL), Case(watched, measure.SMALL)]
