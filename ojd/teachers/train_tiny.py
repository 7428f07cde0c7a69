"""Trains `mask_rcnn_tiny` on the synthetic world: seeded, and resumable.

What step i sees is a function of (seed, i) alone, and the state after it is
kept from time to time, so that an interrupted training goes on as if nothing
had been.
"""

import math
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ojd.teachers import detector
from ojd.teachers import mask_rcnn_tiny as tiny
from ojd.types import Instances

_WARM_UP = 200
_CLIP = 5.0
# What is smaller is no more than noise to a network of this size.
_LEAST_SIDE, _LEAST_PIXELS = 3, 16


class Recipe(NamedTuple):
  """What decides the weights."""

  seed: int = 0
  num_steps: int = 4000
  batch: int = 4
  learning_rate: float = 1.5e-3
  height: int = 192
  width: int = 320


class StepReport(NamedTuple):
  """How training goes."""

  step: int
  loss: float


def learning_rate(recipe: Recipe, step: int) -> float:
  """A short warm-up, then half a cosine down to nothing."""
  if step < _WARM_UP:
    return recipe.learning_rate * (step + 1) / _WARM_UP
  share = (step - _WARM_UP) / max(recipe.num_steps - _WARM_UP, 1)
  return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def example(class_names, frame: np.ndarray, instances: Instances):
  """One frame with the instances that can be learnt from.

  Args:
    class_names: what the instances' class ids mean.
    frame: [H, W, 3] uint8.
    instances: exact ones, with masks of the frame's size.

  Returns:
    Image and target as torchvision's detectors take them.
  """
  to_class = np.array([tiny.CLASS_NAMES.index(name) for name in class_names])
  boxes = instances.boxes[:, [1, 0, 3, 2]]
  sides = boxes[:, 2:] - boxes[:, :2]
  large = sides.min(1, initial=np.inf) >= _LEAST_SIDE
  large &= instances.masks.sum((1, 2)) >= _LEAST_PIXELS
  target = {
    "boxes": torch.from_numpy(boxes[large].astype(np.float32)),
    "labels": torch.from_numpy(to_class[instances.class_ids[large]]).long(),
    "masks": torch.from_numpy(instances.masks[large].astype(np.uint8)),
  }
  return detector.to_tensor(frame), target


def mirror(image, target):
  """Left becomes right."""
  boxes = target["boxes"].clone()
  boxes[:, [0, 2]] = image.shape[2] - boxes[:, [2, 0]]
  masks = target["masks"].flip(2)
  return image.flip(2), target | {"boxes": boxes, "masks": masks}


def train(
  recipe: Recipe,
  batch_fn: Callable[[int], tuple[list, list]],
  folder: pathlib.Path,
  *,
  save_every: int = 250,
  report_fn: Callable[[StepReport], None] = lambda report: None,
  should_stop: Callable[[], bool] = lambda: False,
) -> torch.nn.Module:
  """Trains to the recipe's last step, from where `folder` left off.

  Args:
    recipe: what decides the weights.
    batch_fn: images and targets of a step, a function of the step alone.
    folder: where the state is kept.
    save_every: steps between two savings.
    report_fn: called after every step.
    should_stop: asked before every step.
  """
  torch.manual_seed(recipe.seed)
  model = _WithHint(tiny.build())
  tx = torch.optim.AdamW(model.parameters(), weight_decay=1e-4)
  path = folder / "training.pt"
  first = _restore(path, recipe, model, tx)
  model.train()
  for step in range(first, recipe.num_steps):
    if should_stop():
      break
    # The network draws its own samples of proposals.
    torch.manual_seed(recipe.seed * 1_000_003 + step)
    loss = _update(model, tx, batch_fn(step), learning_rate(recipe, step))
    report_fn(StepReport(step, loss))
    is_last = step + 1 == recipe.num_steps
    if (step + 1) % save_every == 0 or is_last or should_stop():
      _save(path, recipe, model, tx, step + 1)
  return model.detector.eval()


class _WithHint(torch.nn.Module):
  """The detector and a hint: the class of every fourth pixel.

  A detector learns from a few boxes a frame, this from every pixel, through the
  finest level of the same pyramid; it is left out of the weights.
  """

  def __init__(self, detector: torch.nn.Module):
    super().__init__()
    self.detector = detector
    self._classify = torch.nn.Conv2d(tiny.PYRAMID, len(tiny.CLASS_NAMES), 1)
    self._importance = torch.full((len(tiny.CLASS_NAMES),), 3.0)
    self._importance[0] = 1.0
    detector.backbone.register_forward_hook(self._keep)

  def _keep(self, module, inputs, pyramid):
    del module, inputs
    self._finest = pyramid["0"]

  def forward(self, images, targets):
    """The loss of a batch."""
    loss = sum(self.detector(images, targets).values())
    logits = self._classify(self._finest)
    classes = torch.stack([_class_map(target) for target in targets])
    rows, columns = classes.shape[1:]
    hint = F.cross_entropy(
      logits[..., :rows, :columns], classes, weight=self._importance
    )
    return loss + hint


def _class_map(target):
  """The labels of every fourth pixel of a target's masks, [H/4, W/4]."""
  masks = target["masks"][:, ::4, ::4].long()
  labelled = masks * target["labels"][:, None, None]
  empty = torch.zeros((1, *masks.shape[1:]), dtype=torch.long)
  return torch.cat([empty, labelled]).amax(0)


def _update(model, tx, batch, rate):
  """One step; returns its loss. A step that is not finite changes nothing."""
  for group in tx.param_groups:
    group["lr"] = rate
  loss = model(*batch)
  tx.zero_grad()
  loss.backward()
  norm = torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
  if torch.isfinite(norm):
    tx.step()
  return float(loss.detach())


def _save(path, recipe, model, tx, step):
  beside = path.with_suffix(".part")
  state = {"model": model.state_dict(), "tx": tx.state_dict(), "step": step}
  torch.save(state | {"recipe": recipe._asdict()}, beside)
  os.replace(beside, path)


def _restore(path, recipe, model, tx):
  """Loads the latest state of this recipe; returns the step to go on with."""
  if not path.exists():
    return 0
  state = torch.load(path, weights_only=True)
  if state["recipe"] != recipe._asdict():
    return 0
  model.load_state_dict(state["model"])
  tx.load_state_dict(state["tx"])
  return state["step"]
