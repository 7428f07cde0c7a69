"""The README's Python runs as it stands there."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]


def test_python_block_learns(capsys):
  text = (ROOT / "README.md").read_text()
  (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
  exec(compile(block, "README.md", "exec"), {})
  lines = capsys.readouterr().out.splitlines()
  accuracies = [float(line.split()[2]) for line in lines]
  assert [int(line.split()[0]) for line in lines] == [0, 8, 16]
  assert accuracies[-1] > 0.3
