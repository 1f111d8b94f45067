from etils import epath

from audiotag_jax.data.sources import listing


def test_rows_come_with_their_lines(tmp_path):
  path = epath.Path(tmp_path) / "rows.csv"
  path.write_text('a,b\n1,"2\n3"\n\n4\n5,6,7\n')
  assert list(listing.read_rows(path, ("a", "b"))) == [
    (3, {"a": "1", "b": "2\n3"}),
    (5, {"a": "4", "b": ""}),
    (6, {"a": "5", "b": "6", None: ["7"]}),
  ]


def test_a_file_without_a_header_may_have_comments_and_spaces(tmp_path):
  path = epath.Path(tmp_path) / "rows.csv"
  path.write_text('# a, b\n1, "2,3"\n# 4, 5\n-#6, 7\n')
  assert list(listing.read_rows(path, ("a", "b"), ("a", "b"))) == [
    (2, {"a": "1", "b": "2,3"}),
    (4, {"a": "-#6", "b": "7"}),
  ]


def test_a_header_may_have_more_lines_and_columns_without_names(tmp_path):
  path = epath.Path(tmp_path) / "rows.csv"
  path.write_text('"note\nof ours",B ,, A,\nx,1,y,2,z\n')
  assert list(listing.read_rows(path, ("a", "b"))) == [
    (3, {"note\nof ours": "x", "b": "1", "a": "2"})
  ]
