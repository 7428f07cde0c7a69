"""Hook of mkdocs: the pages keep the places that they have in the repository.

A link from docs/ to ../results/ or from README.md to docs/ then works on the
site as it does where the files lie.
"""

import pathlib

from mkdocs.structure import files as files_lib

ROOT = pathlib.Path(__file__).parents[1]
_KINDS = (".md", ".png", ".jpg", ".csv", ".txt", ".json")


def on_files(files, config):
  """The theme's own files, and those of README.md, docs/ and results/."""
  themes = [file for file in files if not _is_ours(file)]
  paths = [ROOT / "README.md"]
  for folder in ("docs", "results"):
    found = sorted((ROOT / folder).rglob("*"))
    paths += [path for path in found if path.suffix in _KINDS]
  ours = [
    files_lib.File(
      path.relative_to(ROOT).as_posix(),
      str(ROOT),
      config.site_dir,
      config.use_directory_urls,
    )
    for path in paths
  ]
  return files_lib.Files([*themes, *ours])


def _is_ours(file):
  source = file.abs_src_path
  return source is not None and ROOT / "docs" in pathlib.Path(source).parents
