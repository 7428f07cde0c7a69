"""Pictures of noise, and their files."""

import numpy as np
from PIL import Image

H, W = 36, 48


def noise(seed, height=H, width=W):
  """A frame that resembles no other, and that no coder makes small."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def flat(value, height=H, width=W):
  """A frame of one grey, which every coder keeps."""
  return np.full((height, width, 3), value, np.uint8)


def save(image, path, **options):
  """Writes an array or an image; makes its folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  image.save(path, **options)


def palette(indices, colours):
  """An image of indices into a list of colours [n, 3]."""
  shape = indices.shape[::-1]
  image = Image.frombytes("P", shape, indices.astype(np.uint8).tobytes())
  image.putpalette(np.asarray(colours, np.uint8).ravel().tolist())
  return image


def blotches(height, width, seed=0):
  """A texture without a period, of details of four pixels."""
  coarse = Image.fromarray(noise(seed, height // 4 + 1, width // 4 + 1))
  return np.asarray(coarse.resize((width, height), Image.BICUBIC))


def views(num, height, width, down, right, seed=0):
  """Of a camera over blotches that goes so many pixels a frame."""
  places = np.arange(num)[:, None] * (down, right)
  places -= places.min(0)
  tall, wide = places.max(0) + (height, width)
  whole = blotches(tall, wide, seed)
  return np.stack([whole[y : y + height, x : x + width] for y, x in places])
