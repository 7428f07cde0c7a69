"""Student networks, in Flax Linen.

    student = ojd.models.create("jitnet:width=0.25", num_classes=5)
    params = student.init(jax.random.key(0), frame)
    logits = student.apply(params, frame)  # [H, W, C]

A further network is a file with its factory, and a row of `student.MODELS`.
"""

import importlib
from typing import Any

__all__ = ["MODELS", "Student", "bind", "create", "from_linen", "network"]


def __getattr__(name: str) -> Any:
  # Lazily: a teacher's process, which reads of the optical flow, needs no Flax.
  if name in __all__:
    return getattr(importlib.import_module("ojd.models.student"), name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
