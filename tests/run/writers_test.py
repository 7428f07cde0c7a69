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


def test_metrics_reach_the_file_and_lose_what_is_done_again(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"t": 0}\n{"t": 1}\n{"t": 2}\n{"t"')
  writer = writers.MetricsWriter(path, 2)
  writer.write({"t": 2, "again": True})
  whole = '{"t": 0}\n{"t": 1}\n{"t": 2, "again": true}\n'
  assert path.read_text() == whole  # before it is closed
  writer.close()
  assert path.read_text() == whole


@pytest.mark.parametrize("room", (20, 26, 27, 28, 44))
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
  gate, puts, seen = threading.Event(), [], []
  background = writers.Background(lambda i: gate.wait() and seen.append(i))

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
    raise OSError(errno.ENOSPC, "No space left on device")

  def close():
    closed.append(1)
    raise ValueError("nothing to join")

  background = writers.Background(write, close=close)
  background.put(0)
  with pytest.raises(OSError, match="No space"):
    for i in range(100):
      background.put(i)
      time.sleep(0.01)
  # What failed first comes before what closing says.
  with pytest.raises(OSError, match="No space"):
    background.close()
  assert closed == [1]
