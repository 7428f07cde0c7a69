"""Files that a person looks at, read back with another reader."""

import errno
import json
import threading
import time

import av
import numpy as np
import pytest

from ojd.formats import append_log
from ojd.run import sinks, workdir, writers
from tests.reference import frame_records

NAMES = ("background", "person", "car")


def _record(t, height=48, width=64):
  classes = np.zeros((height, width), np.uint8)
  classes[8:30, 10 + t % 20 : 30 + t % 20] = 1 + t % 2
  return frame_records.make(t, classes)


def test_metrics_reach_the_file_line_by_line(tmp_path):
  path = tmp_path / "metrics.jsonl"
  writer = writers.MetricsWriter(path)
  writer.write({"t": 0})
  writer.write({"t": 1, "eval_miou": 0.5})
  lines = path.read_text().splitlines()  # before it is closed
  assert [json.loads(line) for line in lines] == [
    {"t": 0},
    {"t": 1, "eval_miou": 0.5},
  ]
  writer.close()


def test_overlay_video_plays_with_every_frame(tmp_path):
  path = tmp_path / "overlay.mp4"
  video = writers.OverlayVideo(tmp_path, 25.0, NAMES)
  for t in range(12):
    video.write(_record(t))
  video.close()
  with av.open(str(path)) as file:
    stream = file.streams.video[0]
    assert stream.codec_context.name == "h264"
    assert stream.codec_context.pix_fmt == "yuv420p"
    assert float(stream.average_rate) == 25.0
    frames = [f.to_ndarray(format="rgb24") for f in file.decode(stream)]
  assert len(frames) == 12
  painted = writers.paint(_record(3), NAMES)
  assert frames[3].shape == painted.shape
  difference = np.abs(frames[3].astype(int) - painted.astype(int))
  assert difference.mean() < 12  # lossy, but this picture


def test_fractional_frame_rates_are_kept(tmp_path):
  path = tmp_path / "overlay.mp4"
  video = writers.OverlayVideo(tmp_path, 30000 / 1001, NAMES)
  for t in range(3):
    video.write(_record(t))
  video.close()
  with av.open(str(path)) as file:
    rate = float(file.streams.video[0].average_rate)
  assert rate == pytest.approx(29.97, abs=0.01)


@pytest.mark.parametrize("size", [(32, 3000), (5000, 32)])
def test_overlay_is_never_larger_than_players_show(tmp_path, size):
  path = tmp_path / "overlay.mp4"
  video = writers.OverlayVideo(tmp_path, 25.0, NAMES)
  video.write(_record(0, *size))
  video.close()
  with av.open(str(path)) as file:
    (frame,) = file.decode(video=0)
  assert max(frame.height, frame.width) in (4094, 4096)


def _pictures(path):
  with av.open(str(path)) as file:
    return [f.to_ndarray(format="rgb24") for f in file.decode(video=0)]


@pytest.mark.parametrize("fps", [25.0, 30000 / 1001])
def test_overlay_gone_on_with_shows_every_frame_once(tmp_path, fps):
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  whole.mkdir(), parts.mkdir()
  video = writers.OverlayVideo(whole, fps, NAMES)
  for t in range(20):
    video.write(_record(t))
  video.close()
  video = writers.OverlayVideo(parts, fps, NAMES)
  for t in range(11):  # killed amid its second part
    video.write(_record(t))
    if t == 7:
      video.cut()
  video = writers.OverlayVideo(parts, fps, NAMES, start=8)
  for t in range(8, 20):
    video.write(_record(t))
    if t == 14:
      video.cut()
  video.close()
  one, other = (_pictures(x / workdir.OVERLAY) for x in (whole, parts))
  assert len(one) == len(other) == 20
  for a, b in zip(one, other, strict=True):
    assert np.abs(a.astype(int) - b.astype(int)).mean() < 8
  with av.open(str(parts / workdir.OVERLAY)) as file:
    times = [float(frame.time) for frame in file.decode(video=0)]
  np.testing.assert_allclose(times, np.arange(20) / fps, atol=2e-3)


@pytest.mark.parametrize("start", [0, 9, 13, 55])
def test_sample_frames_gone_on_with_are_the_same(tmp_path, start):
  record = _record(0, 32, 32)
  names = []
  for folder, begin in ((tmp_path / "whole", 0), (tmp_path / "parts", start)):
    samples = writers.SampleFrames(folder, NAMES)
    for t in range(begin + 3 if begin else 100):
      samples.write(record._replace(t=t))
    samples = writers.SampleFrames(folder, NAMES, start) if begin else samples
    for t in range(begin, 100 if begin else 0):
      samples.write(record._replace(t=t))
    if begin or folder.name == "whole":
      names.append(sorted(p.name for p in folder.iterdir()))
  assert names[0] == names[-1]


def test_metrics_gone_on_with_lose_what_is_done_again(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"t": 0}\n{"t": 1}\n{"t": 2}\n{"t"')
  writer = writers.MetricsWriter(path, 2)
  writer.write({"t": 2, "again": True})
  writer.close()
  assert path.read_text() == '{"t": 0}\n{"t": 1}\n{"t": 2, "again": true}\n'


def test_a_cut_comes_after_what_was_put_before():
  seen = []
  background = writers.Background(seen.append, cut=lambda: seen.append("cut"))
  for i in range(5):
    background.put(i)
  wait = background.cut()
  background.put(5)
  wait()
  assert seen[:6] == [0, 1, 2, 3, 4, "cut"]
  background.close()


@pytest.mark.parametrize("num_frames", [1, 13, 100, 777])
def test_sample_frames_stay_few_and_spread(tmp_path, num_frames):
  samples = writers.SampleFrames(tmp_path / "frames", NAMES)
  record = _record(0, 32, 32)
  for t in range(num_frames):
    samples.write(record._replace(t=t))
  kept = sorted(int(p.stem) for p in (tmp_path / "frames").iterdir())
  assert 1 <= len(kept) <= 12
  if num_frames >= 13:
    assert len(kept) >= 6
    steps = set(np.diff(kept).tolist())
    assert len(steps) == 1
    assert any(t % 8 for t in kept)  # not key frames only


def test_slow_writer_holds_the_stream_back_and_loses_nothing():
  gate, seen = threading.Event(), []

  def write(record):
    gate.wait()
    seen.append(record)

  background = writers.Background(write)
  puts = []

  def put_many():
    for i in range(50):
      background.put(i)
      puts.append(i)

  thread = threading.Thread(target=put_many)
  thread.start()
  time.sleep(0.2)
  assert len(puts) < 20  # it waits for the writer
  gate.set()
  thread.join()
  background.close()
  assert seen == list(range(50))


def test_error_in_the_thread_is_raised_to_the_run_and_ends_nothing_twice():
  closed = []

  def write(record):
    raise OSError("disk full")

  background = writers.Background(write, close=lambda: closed.append(1))
  background.put(0)
  with pytest.raises(OSError, match="disk full"):
    for i in range(100):
      background.put(i)
      time.sleep(0.01)
  with pytest.raises(OSError, match="disk full"):
    background.close()
  assert closed == [1]


def test_sinks_are_what_was_asked_for(tmp_path):
  opened = sinks.open_sinks(tmp_path, 25.0, NAMES, video=True, masks="png")
  for t in range(3):
    for sink in opened:
      sink.put(_record(t))
  for sink in opened:
    sink.close()
  assert (tmp_path / workdir.OVERLAY).exists()
  assert len(list((tmp_path / workdir.MASKS).glob("*.png"))) == 3
  assert list((tmp_path / workdir.REPORT / "frames").iterdir())
  other = tmp_path / "other"
  other.mkdir()
  assert sinks.open_sinks(other, 25.0, NAMES) == []
  assert list(other.iterdir()) == []


@pytest.mark.parametrize("room", range(20, 45))
def test_metrics_stay_whole_where_the_disk_is_full(tmp_path, monkeypatch, room):
  path = tmp_path / "metrics.jsonl"
  writer = writers.MetricsWriter(path)

  def write_all(file, data):
    kept = data[: max(0, room - path.stat().st_size)]
    file.write(kept)
    if len(kept) < len(data):
      raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(append_log, "write_all", write_all)
  num_written = 0
  with pytest.raises(OSError, match="No space"):
    for t in range(9):
      writer.write({"t": t})
      num_written += 1
  writer.close()
  lines = path.read_text().splitlines()
  assert [json.loads(x)["t"] for x in lines] == list(range(num_written))
  assert num_written == room // len('{"t": 0}\n')
