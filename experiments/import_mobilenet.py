r"""Makes a first student of torchvision's MobileNetV2 weights.

    python -m experiments.import_mobilenet --weights=mobilenet_v2-7ebf99e0.pth \
        --output=imagenet.safetensors
    python -m experiments.import_mobilenet --smoke

Takes seconds. The file that it writes, of 2,223,872 numbers, is for
`online_distill --model=mobilenet_v2 --init=imagenet.safetensors`: it is the
backbone alone. The classifier of ImageNet's classes is left out, and the head
starts at random. So are the running averages of the norms: a student norms
every frame by its own statistics. --smoke takes random weights.
"""

import pathlib
import tempfile

import numpy as np
import safetensors
from absl import flags

from experiments import cli, torchvision_weights
from ojd.errors import UserError
from ojd.models import pretrained, student

_WEIGHTS = flags.DEFINE_string(
  "weights", "", "torchvision's state dict, a .pth"
)
_OUTPUT = flags.DEFINE_string("output", "", "the file to be written")
_MODEL = flags.DEFINE_string(
  "model",
  "mobilenet_v2",
  "mobilenet_v2, or of another width: mobilenet_v2:width=0.5",
)
_SMOKE = flags.DEFINE_bool("smoke", False, "random weights, a temporary file")


def _state(width):
  """The state dict that was asked for."""
  if not _SMOKE.value:
    path = pathlib.Path(_WEIGHTS.value).expanduser()
    return torchvision_weights.read(path)
  from torchvision.models import mobilenet_v2

  return mobilenet_v2(weights=None, width_mult=width).state_dict()


def main() -> None:
  """Converts a file, or random weights."""
  model, output = student.bind(_MODEL.value), _OUTPUT.value
  if model.name != "mobilenet_v2":
    raise UserError(f"--model={model}: only mobilenet_v2 can be imported")
  width = model.options["width"]
  if _SMOKE.value:
    output = tempfile.mkdtemp(prefix="ojd-") + "/student.safetensors"
  elif not (_WEIGHTS.value and output):
    raise UserError("--weights=FILE and --output=FILE: both are needed")
  params = {
    f"backbone/{name}": value
    for name, value in torchvision_weights.convert(_state(width), width).items()
  }
  about = {"model": str(model)}
  path = pathlib.Path(output).expanduser()
  try:
    pretrained.save(path, pretrained.Pretrained(params, (), about), np.float32)
  except (OSError, safetensors.SafetensorError) as error:
    raise UserError(f"--output={path} cannot be written: {error}") from None
  count = sum(x.size for x in params.values())
  print(f"{path}: the backbone, {count:,} parameters")


if __name__ == "__main__":
  cli.run(main)
