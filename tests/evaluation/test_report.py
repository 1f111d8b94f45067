import matplotlib.image
import numpy as np
from clu import metric_writers

from audiotag_jax.evaluation import report


def write(workdir, values, first_step=1):
  writer = metric_writers.create_default_writer(str(workdir), asynchronous=False)
  for step, value in enumerate(values, start=first_step):
    names = ("train/loss", "train/learning_rate", "val/loss", "val/mAP", "val/f1")
    writer.write_scalars(step, dict.fromkeys((*names, "val/f1_macro"), value))
  writer.flush()
  writer.close()


def test_the_table_holds_the_numbers():
  row = dict.fromkeys(report.TABLE_COLUMNS, 0.12345) | {"mAP": 0.9876}
  header, line = report.table({"crnn": row}).splitlines()
  assert header.split() == list(report.TABLE_COLUMNS)
  assert line.split() == ["crnn", "0.988"] + ["0.123"] * 6


def test_scalars_are_read_back(tmp_path):
  write(tmp_path, [0.5, 0.25, 0.125])
  steps, values = report.read_scalars(tmp_path)["train/loss"]
  assert steps.tolist() == [1, 2, 3]
  assert values.tolist() == [0.5, 0.25, 0.125]


def test_of_a_step_written_twice_the_later_value_counts(tmp_path):
  write(tmp_path, [0.5, 0.25, 0.125])
  write(tmp_path, [1.0, 2.0], first_step=2)
  steps, values = report.read_scalars(tmp_path)["train/loss"]
  assert steps.tolist() == [1, 2, 3]
  assert values.tolist() == [0.5, 1.0, 2.0]


def test_the_curves_are_drawn(tmp_path):
  write(tmp_path, np.linspace(1, 0.1, 20))
  path = tmp_path / "results" / "curves.png"
  report.plot_learning_curves(tmp_path, path)
  picture = matplotlib.image.imread(path)
  assert picture.shape[1] > 1000
  assert picture[..., :3].std() > 0.02


def test_the_columns_are_aligned():
  row = dict.fromkeys(report.TABLE_COLUMNS, 0.12345)
  rows = {"a long name": row, "b": row | {"f1": float("nan")}}
  lines = report.table(rows).split("\n")
  assert {len(line) for line in lines} == {11 + 11 * 7}
  assert lines[1] == "a long name" + "      0.123" * 7
  assert lines[2].split() == ["b", "0.123", "nan"] + ["0.123"] * 5


def test_the_curves_show_the_values(tmp_path):
  pictures = []
  for name, values in (("falling", [1.0, 0.5, 0.1]), ("rising", [0.1, 0.5, 1.0])):
    write(tmp_path / name, values)
    report.plot_learning_curves(tmp_path / name, tmp_path / f"{name}.png")
    pictures.append(matplotlib.image.imread(tmp_path / f"{name}.png"))
  assert not np.array_equal(*pictures)
