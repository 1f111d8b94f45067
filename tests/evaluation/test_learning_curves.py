import matplotlib.image
import numpy as np
from clu import metric_writers

from audiotag_jax.evaluation import learning_curves


def write(workdir, values, first_step=1):
  writer = metric_writers.create_default_writer(str(workdir), asynchronous=False)
  for step, value in enumerate(values, start=first_step):
    names = ("train/loss", "train/learning_rate", "val/loss", "val/mAP", "val/f1")
    writer.write_scalars(step, dict.fromkeys((*names, "val/f1_macro"), value))
  writer.flush()
  writer.close()


def test_scalars_are_read_back(tmp_path):
  write(tmp_path, [0.5, 0.25, 0.125])
  steps, values = learning_curves.read_scalars(tmp_path)["train/loss"]
  assert steps.tolist() == [1, 2, 3]
  assert values.tolist() == [0.5, 0.25, 0.125]


def test_of_a_step_written_twice_the_later_value_counts(tmp_path):
  write(tmp_path, [0.5, 0.25, 0.125])
  write(tmp_path, [1.0, 2.0], first_step=2)
  steps, values = learning_curves.read_scalars(tmp_path)["train/loss"]
  assert steps.tolist() == [1, 2, 3]
  assert values.tolist() == [0.5, 1.0, 2.0]


def test_the_curves_are_drawn(tmp_path):
  write(tmp_path, np.linspace(1, 0.1, 20))
  path = tmp_path / "results" / "curves.png"
  learning_curves.plot_learning_curves(tmp_path, path)
  picture = matplotlib.image.imread(path)
  assert picture.shape[1] > 1000
  assert picture[..., :3].std() > 0.02


def test_the_curves_show_the_values(tmp_path):
  pictures = []
  for name, values in (("falling", [1.0, 0.5, 0.1]), ("rising", [0.1, 0.5, 1.0])):
    write(tmp_path / name, values)
    learning_curves.plot_learning_curves(tmp_path / name, tmp_path / f"{name}.png")
    pictures.append(matplotlib.image.imread(tmp_path / f"{name}.png"))
  assert not np.array_equal(*pictures)
