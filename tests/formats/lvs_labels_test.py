"""Label files of LVS: their rules, and files made by somebody unkind."""

import builtins
import functools
import io
import os
import pathlib
import pickle
import shutil

import numpy as np
import pytest

from ojd import labels as labels_lib
from ojd.errors import UserError
from ojd.formats import lvs_labels, safe_pickle
from tests.reference import labels_loop

H, W = 36, 52
CLASSES = "person;auto=car,bus,truck;bike=bicycle,motorcycle"
EMPTY = [np.zeros(0), [], np.zeros(0, np.float32), []]


def _record(seed, num=6):
  """A frame as Detectron writes it: overlapping boxes, soft squares."""
  rng = np.random.default_rng(seed)
  low = rng.uniform(0, 0.7, (num, 2))
  high = np.minimum(low + rng.uniform(0.05, 0.5, (num, 2)), 1)
  return [
    np.hstack([low, high]),
    sorted(rng.choice([1, 2, 3, 4, 6, 8, 17, 80], num).tolist()),
    rng.uniform(0.05, 1, num).astype(np.float32),
    [rng.uniform(0, 1, (28, 28)).astype(np.float32) for _ in range(num)],
  ]


def _save(path, content):
  np.save(path, np.array(content, object), allow_pickle=True)
  return path


def _load_one(path, record, t=0):
  return lvs_labels.load(_save(path, {t: record})).instances(t, H, W)


@pytest.fixture
def path(tmp_path):
  return tmp_path / "detectron_large_mask_rcnn_1_driving1000.npy"


def test_names_are_the_eighty_of_coco():
  names = lvs_labels.COCO_NAMES
  assert len(names) == len(set(names)) == 81
  at = [names[i] for i in (0, 1, 17, 18, 24, 33, 56, 57, 63, 73, 80)]
  assert at == [
    *("background", "person", "dog", "horse", "giraffe", "sports ball"),
    *("cake", "chair", "tv", "refrigerator", "toothbrush"),
  ]


def test_frames_come_back_in_pixels(path):
  boxes = np.array([[0.1, 0.25, 0.5, 0.999], [0.0, 0.0, 1.0, 1.0]])
  masks = [np.full((28, 28), x, np.float32) for x in (0.25, 0.75)]
  record = [boxes, [1, 3], np.float32([0.9, 0.4]), masks]
  got = _load_one(path, record)
  np.testing.assert_array_equal(got.boxes, [[3, 13, 18, 51], [0, 0, H, W]])
  np.testing.assert_array_equal(got.class_ids, [1, 3])
  np.testing.assert_array_equal(got.scores, np.float32([0.9, 0.4]))
  np.testing.assert_array_equal(got.masks, np.stack(masks))
  assert [a.dtype.name for a in got] == [
    *("float32", "float32", "int32", "float32"),
  ]


def test_empty_frames(path):
  file = lvs_labels.load(_save(path, {0: EMPTY, 1: _record(0)}))
  got = file.instances(0, H, W)
  assert got.boxes.shape == (0, 4) and got.class_ids.shape == (0,)
  assert len(file) == 2 and 1 in file and 2 not in file


@pytest.mark.parametrize("seed", range(4))
def test_labels_equal_a_plain_loop(path, seed):
  record = _record(seed, num=14)
  groups = labels_lib.parse_groups(CLASSES, lvs_labels.COCO_NAMES)
  got = labels_lib.from_instances(_load_one(path, record), groups, H, W)
  boxes, class_ids, scores, masks = record
  instances = (boxes * [H, W, H, W], scores, class_ids, masks)
  classes, weights = labels_loop.from_instances(
    instances, lvs_labels.COCO_NAMES, groups.members[1:], H, W
  )
  assert len(np.unique(classes)) > 2
  np.testing.assert_array_equal(got.classes, classes)
  np.testing.assert_array_equal(got.weights, weights)


def _write_raw(path, payload):
  """A .npy file whose object is pickled as `payload`."""
  header = {"descr": "|O", "fortran_order": False, "shape": ()}
  with path.open("wb") as file:
    np.lib.format.write_array_header_1_0(file, header)
    file.write(payload)
  return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_every_protocol_and_both_names_of_numpy(path, protocol, core):
  record = _record(1)
  record[1] = [np.int64(i) for i in record[1]]
  content = np.array({0: record, 1: EMPTY}, object)
  payload = pickle.dumps(content, protocol)
  if protocol < 4:  # later names carry their length; np.save writes one
    payload = payload.replace(b"cnumpy._core.", f"c{core}.".encode())
  else:
    payload = _Renamed.dumps(content, protocol, core)
  got = lvs_labels.load(_write_raw(path, payload)).instances(0, H, W)
  expected = _load_one(path, _record(1))
  for a, b in zip(got, expected, strict=True):
    np.testing.assert_array_equal(a, b)


class _Renamed:
  """Pickles under other module names, lengths and frames corrected."""

  @staticmethod
  def dumps(content, protocol, core):
    payload = pickle.dumps(content, protocol)
    for part in ("multiarray", "numeric"):
      old, new = f"numpy._core.{part}".encode(), f"{core}.{part}".encode()
      payload = payload.replace(
        bytes([len(old)]) + old, bytes([len(new)]) + new
      )
    # Frames are a hint of the writer's; without them lengths need no mending.
    return _without_frames(payload)


def _without_frames(payload):
  clean, start = bytearray(), 0
  while (at := payload.find(b"\x95", start)) >= 0:
    is_frame = payload[at + 4 : at + 9] == bytes(5)
    clean += payload[start : at if is_frame else at + 1]
    start = at + 9 if is_frame else at + 1
  return bytes(clean + payload[start:])


def test_bytes_of_python_2(path):
  """Protocol 2 as Python 2 wrote it: bytes as plain strings."""
  array = (
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
  )
  dtype = b"cnumpy\ndtype\n(S'%s'\nI0\nI1\ntR(I3\nS'%s'\nNNNI-1\nI-1\nI0\ntb"
  number = dtype % (b"f4", b"<")
  data = b"U\x08" + np.float32([0.25, 0.5]).tobytes()
  vector = array + b"(I1\n(I2\nt" + number + b"I00\n" + data + b"tb"
  payload = (
    *(b"\x80\x02", array, b"(I1\n(t", dtype % (b"O8", b"|"), b"I00\n("),
    *(b"(I7\n", vector, b"dltb."),
  )
  path = _write_raw(path, b"".join(payload))
  with path.open("rb") as file:
    content = safe_pickle.load_object(file)
  np.testing.assert_array_equal(content[7].value(), np.float32([0.25, 0.5]))


class _Call:
  """Has a function called when it is unpickled, unless that is prevented."""

  def __init__(self, function, *args, state=None):
    self._parts = function, args, state

  def __reduce__(self):
    return self._parts if self._parts[2] is not None else self._parts[:2]


def _payloads(target):
  """Ways to have `target` written by whoever opens a pickle."""
  write = f"open({str(target)!r}, 'w').close()"
  eval_ = _Call(builtins.eval, write)
  array = np.zeros(2)
  return {
    "eval": eval_,
    "exec": _Call(builtins.exec, write),
    "bytes": _Call(builtins.bytes, [1, 2]),
    "system": _Call(os.system, f"touch {target}"),
    "partial": _Call(functools.partial, os.system, f"touch {target}"),
    "getattr": _Call(builtins.getattr, os.system, "__self__"),
    "copy": _Call(shutil.copy, __file__, str(target)),
    "save": _Call(np.save, str(target), array),
    "write": _Call(pathlib.Path.write_text, pathlib.Path(target), "x"),
    "tofile": _Call(np.ndarray.tofile, array, str(target)),
    "memmap": _Call(np.memmap, str(target), "u1", "w+", 0, (9,)),
    "fromregex": _Call(np.fromfile, __file__),
    "load": _Call(np.load, __file__),
    "array of": np.array([eval_, None], object),
    "array of arrays": np.array(
      [np.array([eval_, 1], object), np.array([1, 2, 3], object)], object
    ),
    "in a list": [1, [2, (3, {"x": eval_})]],
    "as a key": {1: {2: eval_}},
    "as a state": _Call(np.dtype, "f8", state=(3, eval_)),
    "as an argument": _Call(np.dtype, eval_),
  }


NAMES = sorted(_payloads(""))


@pytest.mark.parametrize("place", ["alone", "frame", "boxes", "masks"])
@pytest.mark.parametrize("name", NAMES)
def test_malicious_pickle_is_not_executed(tmp_path, path, name, place):
  target = tmp_path / "written"
  payload, record = _payloads(target)[name], _record(0)
  if place == "boxes":
    record[0] = payload
  if place == "masks":
    record[3][2] = payload
  content = {"alone": payload, "frame": {0: payload}}.get(place, {0: record})
  box = np.empty((), object)
  box[()] = content
  np.save(path, box, allow_pickle=True)
  with pytest.raises(UserError) as error:
    lvs_labels.load(path).instances(0, H, W)
  assert str(path) in str(error.value) and "\n" not in str(error.value)
  assert not target.exists()


def test_the_payloads_would_work(tmp_path):
  """What the test above prevents does happen to who trusts the file."""
  for name in ("eval", "system", "memmap", "in a list", "array of"):
    target = tmp_path / name.replace(" ", "_")
    pickle.loads(pickle.dumps(_payloads(target)[name]))
    assert target.exists()


@pytest.mark.parametrize(
  "payload",
  [
    b"",
    b".",
    b"\x80\x04N.",
    b"cnumpy\ndtype\n(S'f8'\ntR.",
    # Changes a stand-in itself: its state, its attributes.
    b"cnumpy\nndarray\n(I1\ntb.",
    b"cnumpy\ndtype\n}S'__call__'\nI1\nsb.",
    b"cnumpy\nndarray\n(N}S'_make'\nI1\nstb.",
    b"cnumpy\nndarray\n)\x81.",
    b"cnumpy.core.multiarray\nscalar\n(I1\ntR.",
    b"cnumpy.core\nmultiarray._reconstruct\n.",
    b"cnumpy\nndarray.__class__\n.",
    b"c_codecs\nencode\n(S'x'\nS'zlib'\ntR.",
    b"c_codecs\nencode\n(S'x'\ntR.",
    b"\x80\x04\x82\x01.",
    b"S'id'\nQ.",
    b"(" * 100_000,
    b"h\xff.",
  ],
)
def test_odd_pickles_are_refused(path, payload):
  with pytest.raises(UserError, match="not a label file"):
    lvs_labels.load(_write_raw(path, payload))


def test_flipped_and_cut_files_end_in_one_line(path):
  _save(path, {0: _record(0, num=2), 1: EMPTY})
  whole = path.read_bytes()
  rng = np.random.default_rng(0)
  for i in range(400):
    changed = bytearray(whole)
    for place in rng.integers(0, len(whole), 1 + i % 3):
      changed[place] ^= 1 << rng.integers(0, 8)
    cut = rng.integers(0, len(whole)) if i % 4 == 0 else len(whole)
    path.write_bytes(changed[:cut])
    try:
      file = lvs_labels.load(path)
      for t in range(2):
        if t in file:
          file.instances(t, H, W)
    except UserError as error:
      assert str(path) in str(error) and "\n" not in str(error)


def _bad_records():
  good = lambda: _record(0)
  changes = {
    "three lists": good()[:3],
    "no lists": 7,
    "a string": "boxes",
    "pixels": [good()[0] * 500, *good()[1:]],
    "nan": [good()[0] * np.nan, *good()[1:]],
    "five sides": [np.zeros((6, 5)), *good()[1:]],
    "fewer boxes": [good()[0][:3], *good()[1:]],
    "boxes of nothing": [good()[0], [], np.zeros(0), []],
    "complex": [good()[0].astype(complex), *good()[1:]],
    "text": [good()[0].astype(str), *good()[1:]],
    "dates": [good()[0].astype("M8[s]"), *good()[1:]],
    "class 0": [good()[0], [0] * 6, *good()[2:]],
    "class 81": [good()[0], [81] * 6, *good()[2:]],
    "huge class": [good()[0], [10**400] * 6, *good()[2:]],
    "half a class": [good()[0], [1.5] * 6, *good()[2:]],
    "class names": [good()[0], ["car"] * 6, *good()[2:]],
    "nested ids": [good()[0], [[1]] * 6, *good()[2:]],
    "score 2": [*good()[:2], good()[2] * 0 + 2, good()[3]],
    "no scores": [*good()[:2], None, good()[3]],
    "fewer masks": [*good()[:3], good()[3][:5]],
    "uneven masks": [*good()[:3], [*good()[3][:5], np.zeros((14, 14))]],
    "oblong masks": [*good()[:3], [np.zeros((28, 14))] * 6],
    "flat masks": [*good()[:3], [np.zeros(28)] * 6],
    "masks above 1": [*good()[:3], [np.full((28, 28), 3.0)] * 6],
    "huge masks": [*good()[:3], [np.zeros((300, 300), bool)] * 6],
    "masks of objects": [*good()[:3], [np.array([None] * 4)] * 6],
    "masks of lists": [*good()[:3], [[0.5]] * 6],
  }
  return {name.replace(" ", "_"): record for name, record in changes.items()}


@pytest.mark.parametrize("name", _bad_records())
def test_bad_frames_are_refused_when_asked_for(path, name):
  record = _bad_records()[name]
  file = lvs_labels.load(_save(path, {0: record, 1: EMPTY}))
  assert len(file.instances(1, H, W).boxes) == 0
  with pytest.raises(UserError, match="frame 0 are not LVS's") as error:
    file.instances(0, H, W)
  assert len(str(error.value)) < 400


@pytest.mark.parametrize(
  "content", [[1, 2], None, {"0": EMPTY}, {-1: EMPTY}, {0.0: EMPTY}]
)
def test_other_objects_are_refused(path, content):
  box = np.empty((), object)
  box[()] = content
  np.save(path, box, allow_pickle=True)
  with pytest.raises(UserError, match="not a label file"):
    lvs_labels.load(path)


@pytest.mark.parametrize(
  "array", [np.zeros(3), np.array([{}, {}], object), np.zeros((), "V8")]
)
def test_other_arrays_are_refused(path, array):
  np.save(path, array, allow_pickle=True)
  with pytest.raises(UserError, match="not a label file"):
    lvs_labels.load(path)


def test_missing_and_oversized_files_are_refused(path, monkeypatch):
  with pytest.raises(UserError, match="No such file"):
    lvs_labels.load(path)
  _save(path, {0: EMPTY})
  monkeypatch.setattr(lvs_labels, "_MAX_FILE_BYTES", 10)
  with pytest.raises(UserError, match="at most"):
    lvs_labels.load(path)


def test_changed_file_is_read_again(path):
  assert len(lvs_labels.load(_save(path, {0: EMPTY}))) == 1
  assert len(lvs_labels.load(_save(path, {0: EMPTY, 1: EMPTY}))) == 2


def test_objects_are_never_numbers():
  buffer = io.BytesIO()
  box = np.empty((), object)
  box[()] = np.array([1, None], object)
  np.save(buffer, box, allow_pickle=True)
  buffer.seek(0)
  array = safe_pickle.load_object(buffer)
  assert array.objects() == [1, None]
  with pytest.raises(ValueError, match="objects"):
    array.value()


def test_names_of_files():
  path = "x/detectron_large_mask_rcnn_1_ice_hockey_ego_1003.npy"
  chunk = lvs_labels.chunk_of(pathlib.Path(path))
  assert chunk == "ice_hockey_ego_1003"
  assert lvs_labels.stream_of(chunk) == "ice_hockey_ego_1"
  assert lvs_labels.stream_of("driving") == lvs_labels.stream_of("000") == ""
