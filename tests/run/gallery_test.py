"""Key frames in pictures: which are kept, and what is to be seen on them."""

import json
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
from tests.reference import scenes, tiny_student

NAMES = ("background", "red", "green", "blue", "grey")
HEIGHT, WIDTH, GREY = 32, 48, 100


def _info(**numbers):
  zeros = dict.fromkeys(StepInfo._fields, 0)
  return StepInfo(**zeros | {"miou_before": 0.25, "miou_after": 0.75} | numbers)


def _full(value):
  return np.full((HEIGHT, WIDTH), value, np.uint8)


def _record(t, frame_t=None, **numbers):
  return gallery.KeyRecord(
    t=t,
    frame_t=t if frame_t is None else frame_t,
    frame=np.full((HEIGHT, WIDTH, 3), GREY, np.uint8),
    labels=_full(1),
    before=_full(2),
    after=_full(3),
    info=_info(**numbers),
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
    (5, [0, 1, 2, 3, 4]),
    (12, list(range(12))),
    (13, [0, 2, 4, 6, 8, 10, 12]),
    (60, [0, 8, 16, 24, 32, 40, 48, 56]),
  ),
)
def test_a_dozen_is_kept_evenly_from_the_first_on(tmp_path, num_keys, expected):
  asked = _fill(tmp_path / "keys", range(num_keys))
  assert _kept(tmp_path / "keys") == expected
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


def _middles(picture, width=WIDTH, height=HEIGHT):
  """The colour in the middle of each of the four panels."""
  size = overlay.font_size(height, width)
  gap, strip = max(2, size // 4), round(1.5 * size)
  pixels = np.asarray(picture.convert("RGB")).astype(int)
  return [
    pixels[
      row * (height + strip + gap) + strip + height // 2,
      gap + column * (width + gap) + width // 2,
    ]
    for row in (0, 1)
    for column in (0, 1)
  ]


def _blend(label):
  """Class colours cover 55% of the frame."""
  return 0.55 * palette.colors(len(NAMES))[label] + 0.45 * GREY


def test_panels_are_frame_labels_before_and_after():
  frame, *panels = _middles(gallery.compose(_record(0), len(NAMES)))
  np.testing.assert_allclose(frame, GREY, atol=1)
  for label, panel in enumerate(panels, 1):
    np.testing.assert_allclose(panel, _blend(label), atol=3)


def test_words_say_what_was_learnt():
  titles = lambda *args, **kw: [
    t[0] for t in gallery._titles(_record(*args, **kw))
  ]
  assert titles(40, num_updates=1) == [
    "frame 40",
    "teacher",
    "student before   0.250",
    "student after 1 update   0.750",
  ]
  assert titles(48, 40, num_updates=3)[:2] == [
    "frame 40",
    "teacher, 8 frames late",
  ]
  assert "3 updates" in titles(48, 40, num_updates=3)[3]


def test_large_frames_make_pictures_of_a_bounded_size():
  record = _record(0)._replace(
    frame=np.zeros((720, 1280, 3), np.uint8),
    **dict.fromkeys(
      ("labels", "before", "after"), np.zeros((720, 1280), np.uint8)
    ),
  )
  width, height = gallery.compose(record, 2).size
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

  return distill.System(
    init=lambda key, frame: _State(jnp.int32(0), jnp.int32(0)),
    next_key=lambda state: (state.t + 3) // 4 * 4,
    learn=learn,
    predict=lambda state, frame: (
      state._replace(t=state.t + 1),
      classes(state, frame),
    ),
  )


class _GreyStream:
  spec = StreamSpec(HEIGHT, WIDTH, 25.0, 16, NAMES, {"kind": "test"})

  def read(self, start=0):
    frame = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)
    for t in range(start, 16):
      yield Sample(t, frame, _full(1))


class _Teacher:
  class_names, is_free = NAMES, False

  def __call__(self, sample):
    return _full(4)


def _run(path, *, has_pictures, stream, teacher, system):
  path.mkdir()
  names = stream.spec.class_names
  groups = labels.parse_groups("", names)
  config = RunConfig(workdir=str(path), overlay=has_pictures)
  job = build.Job(config, stream, teacher, groups, groups, system)
  loop.Loop(job, path, sources.InStep()).run()


def test_a_run_pictures_the_student_before_and_after(tmp_path):
  """Its teacher says 4 where the truth is 1."""
  path = tmp_path / "run"
  _run(
    path,
    has_pictures=True,
    stream=_GreyStream(),
    teacher=_Teacher(),
    system=_counting_system(),
  )
  files = sorted((path / workdir.REPORT / "keys").iterdir())
  assert [file.name for file in files] == [
    f"{t:06d}.jpg" for t in (0, 4, 8, 12)
  ]
  for i, file in enumerate(files):
    with Image.open(file) as picture:
      _, shown, before, after = _middles(picture)
    np.testing.assert_allclose(shown, _blend(4), atol=12)
    np.testing.assert_allclose(after, _blend(i + 1), atol=12)
    if i:  # 0 is the background, which is dimmed
      np.testing.assert_allclose(before, _blend(i), atol=12)


class _Squares:
  """The teacher of coloured squares."""

  class_names, is_free = scenes.NAMES, False

  def __init__(self, stream):
    self._classes = stream.labels.classes

  def __call__(self, sample):
    return self._classes[sample.t]


def test_pictures_change_nothing_of_the_run(tmp_path):
  system = systems.jit(
    tiny_student.make(),
    updates.sgd(learning_rate=0.3),
    delta_min=2,
    delta_max=8,
    u_max=4,
  )
  stories = []
  for has_pictures in (False, True):
    path, stream = tmp_path / str(has_pictures), scenes.Stream()
    _run(
      path,
      has_pictures=has_pictures,
      stream=stream,
      teacher=_Squares(stream),
      system=system,
    )
    lines = (path / workdir.METRICS).read_text().splitlines()
    stories.append(
      [
        {k: v for k, v in json.loads(line).items() if not k.startswith("ms_")}
        for line in lines
      ]
    )
    assert (path / workdir.REPORT / "keys").exists() == has_pictures
  assert stories[0] == stories[1] and len(stories[0]) == 30
  assert any(line["num_updates"] for line in stories[0])
