from audiotag_jax.evaluation import results


def test_the_table_holds_the_numbers():
  row = dict.fromkeys(results.TABLE_COLUMNS, 0.12345) | {"mAP": 0.9876}
  header, line = results.table({"crnn": row}).splitlines()
  assert header.split() == list(results.TABLE_COLUMNS)
  assert line.split() == ["crnn", "0.988"] + ["0.123"] * 6


def test_the_columns_are_aligned():
  row = dict.fromkeys(results.TABLE_COLUMNS, 0.12345)
  rows = {"a long name": row, "b": row | {"f1": float("nan")}}
  lines = results.table(rows).split("\n")
  assert {len(line) for line in lines} == {11 + 11 * 7}
  assert lines[1] == "a long name" + "      0.123" * 7
  assert lines[2].split() == ["b", "0.123", "nan"] + ["0.123"] * 5
