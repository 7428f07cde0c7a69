"""Label files of LVS: their rules, and files made by somebody unkind."""

import builtins
import functools
import importlib
import os
import pathlib
import pickle
import shutil

import numpy as np
import pytest

from ojd.errors import UserError
from ojd.formats import lvs_labels, safe_pickle
from tests.reference.lvs_folder import record
from tests.reference.refusals import refused

H, W = 36, 52
EMPTY = [np.zeros(0), [], np.zeros(0, np.float32), []]


def _boxed(content):
  """Any object as an array, as `np.save` wants it."""
  box = np.empty((), object)
  box[()] = content
  return box


def _save(path, content):
  np.save(path, _boxed(content), allow_pickle=True)
  return path


def _load_one(path, frame):
  return lvs_labels.load(_save(path, {0: frame})).instances(0, H, W)


@pytest.fixture
def path(tmp_path):
  return tmp_path / "detectron_large_mask_rcnn_1_driving1000.npy"


def test_names_are_those_of_coco_and_of_chunks():
  names = lvs_labels.COCO_NAMES
  assert len(names) == len(set(names)) == 81
  at = [names[i] for i in (0, 1, 17, 18, 33, 56, 63, 80)]
  words = "background person dog horse sports_ball cake tv toothbrush"
  assert at == [word.replace("_", " ") for word in words.split()]
  path = "x/detectron_large_mask_rcnn_1_ice_hockey_ego_1003.npy"
  chunk = lvs_labels.chunk_of(pathlib.Path(path))
  assert chunk == "ice_hockey_ego_1003"
  assert lvs_labels.stream_of(chunk) == "ice_hockey_ego_1"
  assert lvs_labels.stream_of("driving") == lvs_labels.stream_of("000") == ""


def test_frames_come_back_in_pixels(path):
  boxes = np.array([[0.1, 0.25, 0.5, 0.999], [0.0, 0.0, 1.0, 1.0]])
  masks = [np.full((28, 28), x, np.float32) for x in (0.25, 0.75)]
  frame = [boxes, [1, 3], np.float32([0.9, 0.4]), masks]
  file = lvs_labels.load(_save(path, {0: EMPTY, 1: frame}))
  assert len(file) == 2 and 1 in file and 2 not in file
  empty, got = (file.instances(t, H, W) for t in (0, 1))
  assert empty.boxes.shape == (0, 4) and empty.class_ids.shape == (0,)
  np.testing.assert_array_equal(got.boxes, [[3, 13, 18, 51], [0, 0, H, W]])
  np.testing.assert_array_equal(got.class_ids, [1, 3])
  np.testing.assert_array_equal(got.scores, np.float32([0.9, 0.4]))
  np.testing.assert_array_equal(got.masks, np.stack(masks))
  dtypes = [array.dtype.name for array in got]
  assert dtypes == ["float32", "float32", "int32", "float32"]
  # A file that changes is read again.
  assert len(lvs_labels.load(_save(path, {0: EMPTY}))) == 1


def _write_raw(path, payload):
  """A .npy file whose object is pickled as `payload`."""
  header = {"descr": "|O", "fortran_order": False, "shape": ()}
  with path.open("wb") as file:
    np.lib.format.write_array_header_1_0(file, header)
    file.write(payload)
  return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_every_protocol_and_both_names_of_numpy(
  path, protocol, core, monkeypatch
):
  expected = _load_one(path, record(1))
  for module, name in (
    *(("multiarray", "_reconstruct"), ("multiarray", "scalar")),
    ("numeric", "_frombuffer"),
  ):
    function = getattr(importlib.import_module(f"numpy._core.{module}"), name)
    named = importlib.import_module(f"{core}.{module}")
    monkeypatch.setitem(vars(named), name, function)
    monkeypatch.setattr(function, "__module__", named.__name__)
  boxes, ids, *others = record(1)
  frame = [boxes, [np.int64(i) for i in ids], *others]
  payload = pickle.dumps(_boxed({0: frame, 1: EMPTY}), protocol)
  assert f"{core}.multiarray".encode() in payload
  got = lvs_labels.load(_write_raw(path, payload)).instances(0, H, W)
  for a, b in zip(got, expected, strict=True):
    np.testing.assert_array_equal(a, b)


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
  with _write_raw(path, b"".join(payload)).open("rb") as file:
    content = safe_pickle.load_object(file)
  np.testing.assert_array_equal(content[7].value(), np.float32([0.25, 0.5]))
  # Objects are never numbers.
  with _save(path, np.array([1, None], object)).open("rb") as file:
    array = safe_pickle.load_object(file)
  assert array.objects() == [1, None]
  with pytest.raises(ValueError, match="objects"):
    array.value()


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


@pytest.mark.parametrize("place", ["alone", "frame", "boxes", "masks"])
@pytest.mark.parametrize("name", _payloads(""))
def test_malicious_pickle_is_not_executed(tmp_path, path, name, place):
  target = tmp_path / "written"
  payload, frame = _payloads(target)[name], record(0, 6)
  if place == "boxes":
    frame[0] = payload
  if place == "masks":
    frame[3][2] = payload
  content = {"alone": payload, "frame": {0: payload}}.get(place, {0: frame})
  _save(path, content)
  with refused(str(path)):
    lvs_labels.load(path).instances(0, H, W)
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
    *(b"", b".", b"\x80\x04N.", b"cnumpy\ndtype\n(S'f8'\ntR."),
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
    *(b"\x80\x04\x82\x01.", b"S'id'\nQ.", b"(" * 100_000, b"h\xff."),
  ],
)
def test_odd_pickles_are_refused(path, payload):
  with refused("not a label file"):
    lvs_labels.load(_write_raw(path, payload))


@pytest.mark.parametrize(
  "array",
  [
    *map(_boxed, ([1, 2], None, {"0": EMPTY}, {-1: EMPTY}, {0.0: EMPTY})),
    *(np.zeros(3), np.array([{}, {}], object), np.zeros((), "V8")),
  ],
)
def test_other_objects_are_refused(path, array):
  np.save(path, array, allow_pickle=True)
  with refused("not a label file"):
    lvs_labels.load(path)


def test_flipped_and_cut_files_end_in_one_line(path):
  whole = _save(path, {0: record(0, num=2), 1: EMPTY}).read_bytes()
  rng = np.random.default_rng(0)
  for i in range(400):
    changed = bytearray(whole)
    for place in rng.integers(0, len(whole), 1 + i % 3):
      changed[place] ^= 1 << rng.integers(0, 8)
    cut = rng.integers(0, len(whole)) if i % 4 == 0 else len(whole)
    path.write_bytes(changed[:cut])
    try:
      file = lvs_labels.load(path)
      for t in [t for t in range(2) if t in file]:
        file.instances(t, H, W)
    except UserError as error:
      assert str(path) in str(error) and "\n" not in str(error)


BOXES, IDS, SCORES, MASKS = record(0, 6)


BAD_PARTS = (
  [
    *(BOXES * 500, BOXES * np.nan, np.zeros((6, 5)), BOXES[:3]),
    *(BOXES.astype(kind) for kind in (complex, str, "M8[s]")),
  ],
  [[class_id] * 6 for class_id in (0, 81, 10**400, 1.5, "car", [1])],
  [SCORES * 0 + 2, None],
  [
    *(MASKS[:5], [*MASKS[:5], np.zeros((14, 14))], [np.zeros((28, 14))] * 6),
    *([np.zeros(28)] * 6, [np.full((28, 28), 3.0)] * 6, [[0.5]] * 6),
    *([np.zeros((300, 300), bool)] * 6, [np.array([None] * 4)] * 6),
  ],
)


@pytest.mark.parametrize(
  "frame",
  [
    *([BOXES, IDS, SCORES], 7, "boxes", [BOXES, [], np.zeros(0), []]),
    *(
      [*(BOXES, IDS, SCORES, MASKS)[:i], bad, *(IDS, SCORES, MASKS)[i:]]
      for i, parts in enumerate(BAD_PARTS)
      for bad in parts
    ),
  ],
)
def test_bad_frames_are_refused_when_asked_for(path, frame):
  file = lvs_labels.load(_save(path, {0: frame, 1: EMPTY}))
  assert len(file.instances(1, H, W).boxes) == 0
  with refused("frame 0 are not LVS's") as error:
    file.instances(0, H, W)
  assert len(str(error.value)) < 400


def test_missing_and_oversized_files_are_refused(path, monkeypatch):
  with refused("No such file"):
    lvs_labels.load(path)
  _save(path, {0: EMPTY})
  monkeypatch.setattr(lvs_labels, "_MAX_FILE_BYTES", 10)
  with refused("at most"):
    lvs_labels.load(path)
