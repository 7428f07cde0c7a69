"""A small folder in the format of COCO."""

import json

import numpy as np
from PIL import Image


def write(folder):
  """Five images, a square of one of two classes in each; the folder."""
  (folder / "train2017").mkdir()
  (folder / "annotations").mkdir()
  images, annotations = [], []
  for i in range(5):
    picture = np.full((40, 60, 3), 30 * i, np.uint8)
    Image.fromarray(picture).save(folder / "train2017" / f"{i}.png")
    images.append({"id": i, "file_name": f"{i}.png", "height": 40, "width": 60})
    about = {"id": i, "image_id": i, "category_id": 10 * (1 + i % 2)}
    square = {"segmentation": [[10, 10, 20, 10, 20, 20, 10, 20]]}
    annotations.append(about | square | {"iscrowd": 0})
  about = {"images": images, "annotations": annotations}
  about["categories"] = [{"id": 10, "name": "cat"}, {"id": 20, "name": "dog"}]
  path = folder / "annotations" / "instances_train2017.json"
  path.write_text(json.dumps(about))
  return folder
