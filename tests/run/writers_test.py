"""The record of a frame, the lines of the metrics, the thread that writes."""

import errno
import json
import math
import threading
import time

import pytest

from ojd.formats import log as log_lib
from ojd.run import writers


def test_record_leaves_out_what_is_absent_and_has_no_nan():
  record = writers.FrameRecord(3, is_key=True, loss=math.nan, stride=8)
  assert record.to_json() == {"t": 3, "is_key": True, "loss": None, "stride": 8}
  plain = writers.FrameRecord(4, num_updates=0, ms_predict=1.5).to_json()
  assert json.dumps(plain) == (
    '{"t": 4, "is_key": false, "num_updates": 0, "ms_predict": 1.5}'
  )


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


def test_resumed_metrics_lose_what_is_done_again(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"t": 0}\n{"t": 1}\n{"t": 2}\n{"t"')
  writer = writers.MetricsWriter(path, 2)
  writer.write({"t": 2, "again": True})
  writer.close()
  assert path.read_text() == '{"t": 0}\n{"t": 1}\n{"t": 2, "again": true}\n'


@pytest.mark.parametrize("room", range(20, 45))
def test_metrics_stay_whole_where_the_disk_is_full(tmp_path, monkeypatch, room):
  path = tmp_path / "metrics.jsonl"
  writer = writers.MetricsWriter(path)

  def write_all(file, data):
    kept = data[: max(0, room - path.stat().st_size)]
    file.write(kept)
    if len(kept) < len(data):
      raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(log_lib, "write_all", write_all)
  num_written = 0
  with pytest.raises(OSError, match="No space"):
    for t in range(9):
      writer.write({"t": t})
      num_written += 1
  writer.close()
  lines = path.read_text().splitlines()
  assert [json.loads(x)["t"] for x in lines] == list(range(num_written))
  assert num_written == room // len('{"t": 0}\n')


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


def test_failure_to_write_comes_before_one_of_closing():
  def write(record):
    raise OSError(errno.ENOSPC, "No space left on device")

  def close():
    raise ValueError("nothing to join")

  sink = writers.Background(write, close=close)
  sink.put(0)
  with pytest.raises(OSError, match="No space"):
    sink.close()
