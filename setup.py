"""Installs `ojd` and its binaries; requirements.txt holds the ranges."""

import pathlib

import setuptools

# Curves of a run, for those who look at them there.
TENSORBOARD = "tensorboardX>=2.6,<3"
WANDB = "wandb>=0.31,<1"
# Many runs, on a cluster.
SLURM = "submitit>=1.5,<2"
RAY = "ray>=2.50,<3"
DOCS = "mkdocs-material>=9.6,<10"  # the site of README.md and docs/
COCO = "pycocotools>=2.0.8,<3"  # the polygons of COCO's format
ROOT = pathlib.Path(__file__).parent


def _requirements():
  lines = (ROOT / "requirements.txt").read_text().splitlines()
  return [line for line in lines if line and not line.startswith("#")]


setuptools.setup(
  name="ojd",
  version="0.1.0",
  description="Online just-in-time distillation in JAX",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=setuptools.find_packages(
    include=["ojd*", "experiments*", "launch*"]
  ),
  install_requires=_requirements(),
  package_data={
    "launch": ["tables/*.toml"],
    "ojd.models": ["assets/*.safetensors"],
    "ojd.report": ["assets/*", "templates/*"],
    "ojd.serve": ["assets/*"],
    "ojd.teachers": ["assets/*.safetensors"],
  },
  extras_require={
    "coco": [COCO],
    "docs": [DOCS],
    "ray": [RAY],
    "slurm": [SLURM],
    "tensorboard": [TENSORBOARD],
    "wandb": [WANDB],
    "test": [
      *("pytest>=8", "hypothesis>=6.100", "pytest-xdist>=3.6"),
      *("ruff>=0.8", "selenium>=4.20"),
      *(COCO, DOCS, SLURM, TENSORBOARD, WANDB),
      f'{RAY}; python_version < "3.14"',  # there may be none for the newest
    ],
  },
)
