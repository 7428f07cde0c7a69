"""Trains `mask_rcnn_tiny` on the synthetic world: seeded, and resumable.

First the backbone alone learns the class of every pixel, which is cheap; then
the whole detector learns. The batch of step i is a function of (seed, i) alone,
and the state is saved from time to time: an interrupted training resumes and
ends with the same weights.
"""

import math
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ojd.errors import UserError
from ojd.formats.replacing import replacing
from ojd.teachers import detector, tiny

_WARM_UP = 200  # steps
_HORIZON, _COOL_DOWN = 1.28, 1 / 3  # of the steps
_CLIP = 5.0
# What is smaller is no more than noise to a network of this size.
_LEAST_SIDE, _LEAST_PIXELS = 3, 16
# Beside the detector's other losses: labels are made of masks.
_MASK_SHARE = 2.0


class Recipe(NamedTuple):
  """What decides the weights."""

  seed: int = 0
  num_dense_steps: int = 6000  # backbone only
  num_steps: int = 18750  # these included
  batch: int = 4
  learning_rate: float = 1.5e-3
  num_worlds: int = 1000
  frames_per_world: int = 8
  height: int = 192
  width: int = 320


class StepReport(NamedTuple):
  """The progress of a training."""

  step: int
  loss: float


def learning_rate(recipe: Recipe, step: int) -> float:
  """Warm-ups for backbone and detector, half a cosine, and a short end.

  The cosine alone would need more steps than there are: a straight line down to
  nothing over the last third cuts it short.
  """
  dense = recipe.num_dense_steps
  since = step if step < dense else step - dense
  if since < _WARM_UP:
    return recipe.learning_rate * (since + 1) / _WARM_UP
  if step < dense:
    return recipe.learning_rate
  horizon = _HORIZON * recipe.num_steps - dense - _WARM_UP
  share = (since - _WARM_UP) / max(horizon, 1)
  cosine = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
  left = (recipe.num_steps - step) / (_COOL_DOWN * recipe.num_steps)
  return cosine * min(1.0, left)


def example(frame: np.ndarray, things: np.ndarray, class_ids: np.ndarray):
  """One frame with the things that can be learned.

  Args:
    frame: [H, W, 3] uint8.
    things: [H, W] uint8; the number of the thing at each pixel, 0 is none.
    class_ids: [256]; the class of each number, as in tiny.CLASS_NAMES.

  Returns:
    Image and target as torchvision's detectors take them.
  """
  boxes, masks = [], []
  for number in np.flatnonzero(np.bincount(things.ravel(), minlength=256)):
    mask = things == number
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    is_large = min(box[2] - box[0], box[3] - box[1]) >= _LEAST_SIDE
    if class_ids[number] and is_large and mask.sum() >= _LEAST_PIXELS:
      boxes.append((*box, class_ids[number]))
      masks.append(mask)
  boxes = np.array(boxes, np.float32).reshape(-1, 5)
  masks = np.array(masks, np.uint8).reshape(-1, *things.shape)
  target = {
    "boxes": torch.from_numpy(boxes[:, :4].copy()),
    "labels": torch.from_numpy(boxes[:, 4].astype(np.int64)),
    "masks": torch.from_numpy(masks),
    # Whatever its size, of every pixel.
    "classes": torch.from_numpy(class_ids[things].astype(np.int64)),
  }
  return detector.to_tensor(frame), target


def mirror(image, target):
  """Left becomes right."""
  boxes = target["boxes"].clone()
  boxes[:, [0, 2]] = image.shape[2] - boxes[:, [2, 0]]
  flipped = {name: target[name].flip(-1) for name in ("masks", "classes")}
  return image.flip(2), target | flipped | {"boxes": boxes}


def train(
  recipe: Recipe,
  batch_fn: Callable[[int], tuple[list, list]],
  folder: pathlib.Path,
  *,
  save_every: int = 250,
  report_fn: Callable[[StepReport], None] = lambda report: None,
  should_stop: Callable[[], bool] = lambda: False,
) -> torch.nn.Module:
  """Trains to the recipe's last step, resuming from `folder`.

  Args:
    recipe: what decides the weights.
    batch_fn: images and targets of a step, a function of the step alone.
    folder: of the saved state.
    save_every: steps between two savings.
    report_fn: called after every step.
    should_stop: called before every step.
  """
  torch.manual_seed(recipe.seed)
  model = _WithHint(tiny.build()).to(memory_format=torch.channels_last)
  tx = torch.optim.AdamW(model.parameters(), weight_decay=1e-4)
  path = folder / "training.pt"
  first = _restore(path, recipe, model, tx)
  model.train()
  for step in range(first, recipe.num_steps):
    if should_stop():
      break
    # The network draws its own samples of proposals.
    torch.manual_seed(recipe.seed * 1_000_003 + step)
    is_dense = step < recipe.num_dense_steps
    rate = learning_rate(recipe, step)
    loss = _update(model, tx, batch_fn(step), rate, is_dense)
    report_fn(StepReport(step, loss))
    is_last = step + 1 == recipe.num_steps
    if (step + 1) % save_every == 0 or is_last or should_stop():
      _save(path, recipe, model, tx, step + 1)
  return model.detector.eval()


class _WithHint(torch.nn.Module):
  """The detector and a hint: the class of every second pixel.

  A detector learns from a few boxes a frame, this from every pixel, through the
  map that the masks are read from; it is left out of the weights.
  """

  def __init__(self, detector: torch.nn.Module):
    super().__init__()
    self.detector = detector
    num_classes = len(tiny.CLASS_NAMES)
    self._classify = torch.nn.Conv2d(tiny.FINE_CHANNELS, num_classes, 1)
    importance = torch.full((num_classes,), 3.0)
    importance[0] = 1.0
    self.register_buffer("_importance", importance)
    detector.backbone.register_forward_hook(self._keep)

  def _keep(self, module, inputs, maps):
    del module, inputs
    self._fine = maps[tiny.FINE]

  def forward(self, images, targets, is_dense: bool):
    """The loss of a batch; of the hint alone where `is_dense`."""
    detected = 0.0
    if is_dense:
      self.detector.backbone(self.detector.transform(images)[0].tensors)
    else:
      losses = self.detector(images, targets)
      detected = sum(losses.values())
      detected = detected + (_MASK_SHARE - 1) * losses["loss_mask"]
    classes = torch.stack([target["classes"] for target in targets])
    logits = self._classify(self._fine).float()
    # The network pads its maps to whole cells.
    classes = classes[:, ::2, ::2]
    logits = logits[..., : classes.shape[1], : classes.shape[2]]
    return detected + F.cross_entropy(logits, classes, self._importance)


def _update(model, tx, batch, rate, is_dense):
  """One step; returns its loss. A step that is not finite changes nothing."""
  for group in tx.param_groups:
    group["lr"] = rate
  # Half the time where the processor multiplies in bfloat16.
  with torch.autocast("cpu", torch.bfloat16):
    loss = model(*batch, is_dense)
  tx.zero_grad()
  loss.backward()
  norm = torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
  if torch.isfinite(norm):
    tx.step()
  return float(loss.detach())


def _save(path, recipe, model, tx, step):
  state = {"model": model.state_dict(), "tx": tx.state_dict(), "step": step}
  with replacing(path) as beside:
    torch.save(state | {"recipe": recipe._asdict()}, beside)


def _restore(path, recipe, model, tx):
  """Loads the latest state of this recipe; returns the next step."""
  if not path.exists():
    return 0
  state = detector.read_state(path, str(path))
  for name, value in recipe._asdict().items():
    if state["recipe"].get(name) != value:
      raise UserError(
        f"{path.parent} holds a training with {name}="
        f"{state['recipe'].get(name)}, not {value}; take another --workdir"
      )
  model.load_state_dict(state["model"])
  tx.load_state_dict(state["tx"])
  return state["step"]
