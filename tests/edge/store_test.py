"""Weights of devices on the server's disk."""

import pytest

from ojd.edge import store
from ojd.network import messages
from tests.reference.edge_world import World, bits, first


def test_store_keeps_so_many_and_tells_damage(tmp_path):
  folder, ids = tmp_path / "new", [bytes([i] * 16) for i in range(4)]
  keeper, held = store.Store(folder, max_files=2), first(version=7)
  for number in ids:
    keeper.save(number, held)
  assert {path.name[:2] for path in folder.iterdir()} == {"02", "03"}
  found = keeper.load(ids[3], held.layout)
  assert bits(found) == bits(held) and found.version == 7
  assert keeper.load(ids[0], held.layout) is None
  assert keeper.load(ids[3], first(trainable=None).layout) is None
  path = folder / f"{ids[3].hex()}.safetensors"
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(messages.WireError, match="damaged"):
    keeper.load(ids[3], held.layout)
  world = World(store=keeper)
  client = world.client()
  client.device.session = ids[3]
  client.again()
  assert any("damaged" in note for note in world.notes)
