"""Key frames in pictures: which are kept, and what is to be seen on them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ojd import distill, labels, systems, updates
from ojd.run import build, gallery, loop, overlay, palette, sources, workdir
from ojd.run.config import RunConfig
from ojd.streams.base import StreamSpec
from ojd.types import Sample, StepInfo
from tests.reference import scenes, small_run, tiny_student

NAMES = ("background", "red", "green", "blue", "grey")
HEIGHT, WIDTH, GREY = 32, 48, 100


def _info(**numbers):
  zeros = dict.fromkeys(StepInfo._fields, 0)
  return StepInfo(**zeros | {"miou_before": 0.25, "miou_after": 0.75} | numbers)


def _full(value):
  return np.full((HEIGHT, WIDTH), value, np.uint8)


def _record(t, frame_t=None, size=(HEIGHT, WIDTH), **numbers):
  maps = [np.full(size, label, np.uint8) for label in (1, 2, 3)]
  return gallery.KeyRecord(
    t,
    t if frame_t is None else frame_t,
    np.full((*size, 3), GREY, np.uint8),
    *maps,
    _info(**numbers),
  )


def _fill(folder, indices, **kwargs):
  """A gallery that takes key frames; index i is frame 10 i."""
  made = gallery.Gallery(folder, NAMES, **kwargs)
  asked = [i for i in indices if made.is_due(i)]
  for i in asked:
    made.put(i, _record(10 * i))
  made.close()
  return asked


def _kept(folder):
  return sorted(int(path.stem) // 10 for path in folder.iterdir())


@pytest.mark.parametrize(
  "num_keys,expected",
  (
    *((5, range(5)), (12, range(12))),
    *((13, range(0, 13, 2)), (60, range(0, 60, 8))),
  ),
)
def test_a_dozen_is_kept_evenly_from_the_first_on(tmp_path, num_keys, expected):
  asked = _fill(tmp_path / "keys", range(num_keys))
  assert _kept(tmp_path / "keys") == list(expected)
  assert len(asked) <= 13 + 6 * np.log2(max(num_keys / 12, 1))


@pytest.mark.parametrize("crash,start", ((30, 10), (30, 25), (14, 13), (9, 0)))
def test_resumed_gallery_ends_as_if_never_interrupted(tmp_path, crash, start):
  """Killed after `crash` key frames, resumed from `start`."""
  _fill(tmp_path / "whole", range(40))
  folder = tmp_path / "killed"
  _fill(folder, range(crash))
  (folder / "notes.jpg").write_bytes(b"")
  (folder / f"{10 * start + 5:06d}.jpg").write_bytes(b"torn")
  _fill(folder, range(start, 40), start=10 * start, num_keys=start)
  assert _kept(folder) == _kept(tmp_path / "whole")


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
  frame, *panels = _middles(gallery.compose(_record(0), len(NAMES)))
  np.testing.assert_allclose(frame, GREY, atol=1)
  for label, panel in enumerate(panels, 1):
    np.testing.assert_allclose(panel, _blend(label), atol=3)


def test_words_say_what_was_learnt():
  once = [t[0] for t in gallery._titles(_record(40, num_updates=1))]
  assert once[:3] == ["frame 40", "teacher", "student before   0.250"]
  assert once[3] == "student after 1 update   0.750"
  late = [t[0] for t in gallery._titles(_record(48, 40, num_updates=3))]
  assert late[:2] == ["frame 40", "teacher, 8 frames late"]
  assert "3 updates" in late[3]


def test_large_frames_make_pictures_of_a_bounded_size():
  width, height = gallery.compose(_record(0, size=(720, 1280)), 4).size
  assert width == 1600 and 900 < height < 1100


class _State(NamedTuple):
  learnt: jax.Array  # how often
  t: jax.Array


def _counting_system():
  """Answers with the number of key frames that it has learnt from."""

  def classes(state, frame):
    return jnp.full(frame.shape[:2], state.learnt % 5, jnp.uint8)

  def learn(state, frame, labels):
    del labels
    state = _State(state.learnt + 1, state.t + 1)
    info = _info(num_updates=jnp.int32(1), stride=jnp.int32(4))
    return state, classes(state, frame), jax.tree.map(jnp.asarray, info)

  def predict(state, frame):
    return state._replace(t=state.t + 1), classes(state, frame)

  init = lambda key, frame: _State(jnp.int32(0), jnp.int32(0))
  next_key = lambda state: (state.t + 3) // 4 * 4
  return distill.System(init, next_key, learn, predict)


class _GreyStream:
  spec = StreamSpec(HEIGHT, WIDTH, 25.0, 16, NAMES, {"kind": "test"})

  def read(self, start=0):
    frame = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)
    for t in range(start, 16):
      yield Sample(t, frame, _full(1))


class _Teacher:
  is_free = False

  def __init__(self, names, answer):
    self.class_names, self._answer = names, answer

  def __call__(self, sample):
    return self._answer(sample.t)


def _run(path, has_pictures, stream, teacher, system):
  path.mkdir()
  names = stream.spec.class_names
  groups = labels.parse_groups("", names)
  config = RunConfig(workdir=str(path), overlay=has_pictures)
  job = build.Job(config, stream, teacher, groups, groups, system)
  loop.Loop(job, path, sources.InStep()).run()


def test_a_run_pictures_the_student_before_and_after(tmp_path):
  """Its teacher says 4 where the truth is 1."""
  path, teacher = tmp_path / "run", _Teacher(NAMES, lambda t: _full(4))
  _run(path, True, _GreyStream(), teacher, _counting_system())
  files = sorted((path / workdir.REPORT / "keys").iterdir())
  assert [int(file.stem) for file in files] == [0, 4, 8, 12]
  for i, file in enumerate(files):
    with Image.open(file) as picture:
      _, shown, before, after = _middles(picture)
    np.testing.assert_allclose(shown, _blend(4), atol=12)
    np.testing.assert_allclose(after, _blend(i + 1), atol=12)
    if i:  # 0 is the background, which is dimmed
      np.testing.assert_allclose(before, _blend(i), atol=12)


def test_pictures_change_nothing_of_the_run(tmp_path):
  system = systems.jit(
    *(tiny_student.make(), updates.sgd(learning_rate=0.3)),
    **{"delta_min": 2, "delta_max": 8, "u_max": 4},
  )
  stories, stream = [], scenes.Stream()
  teacher = _Teacher(scenes.NAMES, lambda t: stream.labels.classes[t])
  for has_pictures in (False, True):
    path = tmp_path / str(has_pictures)
    _run(path, has_pictures, stream, teacher, system)
    stories.append(small_run.lines(path))
    assert (path / workdir.REPORT / "keys").exists() == has_pictures
  assert stories[0] == stories[1] and len(stories[0]) == 30
  assert any(line["num_updates"] for line in stories[0])
