"""Online just-in-time distillation.

A cheap student answers every frame of a video; an expensive teacher labels a
few of them, and the student is trained on those, live, until it agrees.

    import ojd

    config = ojd.RunConfig(stream="synthetic:sports", workdir="runs/sports")
    summary = ojd.online_distill(config).summary
    assert ojd.replay("runs/sports").is_equal

The rooms `streams`, `teachers`, `models`, `tasks`, `updates`, `systems` and
`distill` hold the parts; `docs/python.md` puts them together. All names are
imported when they are first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Public names that are no rooms, and where they are: module, name.
_PLACES = {
  "RunConfig": ("ojd.run.config", "RunConfig"),
  "compare_systems": ("ojd.compare.compare", "compare_systems"),
  "online_distill": ("ojd.run.runner", "online_distill"),
  "replay": ("ojd.run.replay", "replay_workdir"),
}

__all__ = [
  "RunConfig",
  "compare_systems",
  "distill",
  "models",
  "online_distill",
  "replay",
  "streams",
  "systems",
  "tasks",
  "teachers",
  "updates",
]


def __getattr__(name: str) -> Any:
  if name in _PLACES:
    module, own_name = _PLACES[name]
    return getattr(importlib.import_module(module), own_name)
  if name in __all__:
    return importlib.import_module(f"ojd.{name}")
  raise AttributeError(f"module 'ojd' has no attribute {name!r}")


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
