"""Key frames in pictures: which are kept, and what is to be seen on them."""

import numpy as np
import pytest

from ojd.formats import palette
from ojd.metrics import confusion_matrix, run_miou
from ojd.run import loop, overlay, sinks, sources, workdir
from ojd.types import Sample, StepInfo
from tests.reference import loop_run, scenes, small_run

NAMES = ("background", "red", "green", "blue", "grey")
HEIGHT, WIDTH, GREY = 32, 48, 100


def _info(**numbers):
  zeros = dict.fromkeys(StepInfo._fields, 0)
  return StepInfo(**zeros | {"miou_before": 0.25, "miou_after": 0.75} | numbers)


def _record(t, frame_t=None, size=(HEIGHT, WIDTH), **numbers):
  maps = [np.full(size, label, np.uint8) for label in (1, 2, 3)]
  return overlay.KeyFrame(
    t,
    t if frame_t is None else frame_t,
    np.full((*size, 3), GREY, np.uint8),
    *maps,
    _info(**numbers),
  )


def _fill(path, indices, **kwargs):
  """A workdir that takes key frames; index i is frame 10 i."""
  made = sinks.KeyPictures(path, NAMES, **kwargs)
  asked = [i for i in indices if made.is_due(i)]
  for i in asked:
    made.put(i, _record(10 * i))
  made.close()
  return asked


def _kept(path):
  pictures = (path / workdir.REPORT / "keys").iterdir()
  return sorted(int(picture.stem) // 10 for picture in pictures)


@pytest.mark.parametrize(
  "num_keys,expected",
  (
    *((5, range(5)), (12, range(12))),
    *((13, range(0, 13, 2)), (60, range(0, 60, 8))),
  ),
)
def test_a_dozen_is_kept_evenly_from_the_first_on(tmp_path, num_keys, expected):
  asked = _fill(tmp_path, range(num_keys))
  assert _kept(tmp_path) == list(expected)
  assert len(asked) <= 13 + 6 * np.log2(max(num_keys / 12, 1))


@pytest.mark.parametrize("crash,start", ((30, 10), (30, 25), (14, 13), (9, 0)))
def test_resumed_gallery_ends_as_if_never_interrupted(tmp_path, crash, start):
  """Killed after `crash` key frames, resumed from `start`."""
  _fill(tmp_path / "whole", range(40))
  killed = tmp_path / "killed"
  _fill(killed, range(crash))
  folder = killed / workdir.REPORT / "keys"
  (folder / "notes.jpg").write_bytes(b"")
  (folder / f"{10 * start + 5:06d}.jpg").write_bytes(b"torn")
  _fill(killed, range(start, 40), start=10 * start, num_keys=start)
  assert _kept(killed) == _kept(tmp_path / "whole")


def _middles(picture):
  """The colour in the middle of each of the four panels."""
  size = overlay.font_size(HEIGHT, WIDTH)
  gap, strip = max(2, size // 4), round(1.5 * size)
  rows = np.arange(2) * (HEIGHT + strip + gap) + strip + HEIGHT // 2
  columns = gap + np.arange(2) * (WIDTH + gap) + WIDTH // 2
  pixels = np.asarray(picture.convert("RGB")).astype(int)
  return pixels[rows][:, columns].reshape(4, 3)


def _blend(label):
  """Class colours cover 55% of the frame."""
  return 0.55 * palette.colors(len(NAMES))[label] + 0.45 * GREY


def test_panels_are_frame_labels_before_and_after():
  frame, *panels = _middles(overlay.compose_key(_record(0), len(NAMES)))
  np.testing.assert_allclose(frame, GREY, atol=1)
  for label, panel in enumerate(panels, 1):
    np.testing.assert_allclose(panel, _blend(label), atol=3)


def test_words_say_what_was_learned():
  once = [t[0] for t in overlay._key_titles(_record(40, num_updates=1))]
  assert once[:3] == ["frame 40", "teacher", "student before   0.250"]
  assert once[3] == "student after 1 update   0.750"
  late = [t[0] for t in overlay._key_titles(_record(48, 40, num_updates=3))]
  assert late[:2] == ["frame 40", "teacher, 8 frames late"]
  assert "3 updates" in late[3]


def test_large_frames_make_pictures_of_a_bounded_size():
  width, height = overlay.compose_key(_record(0, size=(720, 1280)), 4).size
  assert width == 1600 and 900 < height < 1100


class _Swapped(loop_run.Teacher):
  """Calls red what is green: its answers are not the truth."""

  def __call__(self, sample):
    classes = super().__call__(sample)
    return np.where(classes > 0, 3 - classes, 0).astype(np.uint8)


def test_a_run_pictures_the_student_before_and_after(tmp_path, monkeypatch):
  """And but for the pictures it is the run that it is without."""
  records, lines, stream = [], [], scenes.Stream()
  put = sinks.KeyPictures.put
  note = lambda self, i, record: records.append(record) or put(self, i, record)
  monkeypatch.setattr(sinks.KeyPictures, "put", note)
  for has_pictures in (False, True):
    assert not records
    path, teacher = tmp_path / str(has_pictures), _Swapped(stream)
    path.mkdir()
    job = loop_run.job(path, stream, teacher, overlay=has_pictures)
    loop.Loop(job, path, sources.InStep()).run()
    lines.append(small_run.lines(path))
    assert (path / workdir.REPORT / "keys").exists() == has_pictures
  assert lines[0] == lines[1] and len(lines[0]) == 30
  keys = [line for line in lines[0] if line["is_key"]]
  assert [x.t for x in records] == [key["t"] for key in keys]
  for key, x in zip(keys, records, strict=True):
    np.testing.assert_array_equal(x.frame, stream.frames[x.t])
    np.testing.assert_array_equal(x.labels, teacher(Sample(x.t, None, None)))
    for name in ("before", "after"):
      confusion = confusion_matrix(x.labels, getattr(x, name), 3)
      expected = pytest.approx(key[f"miou_{name}"], abs=0.01)
      assert run_miou(confusion) == expected
  assert any((x.before != x.after).any() for x in records)
