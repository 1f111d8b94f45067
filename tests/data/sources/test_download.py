import hashlib
import http.server
import re
import shutil
import threading
import time

import pytest
from etils import epath

from audiotag_jax.data.sources import download
from audiotag_jax.errors import UserError

FILES = {
  "a.z01": hashlib.shake_256(b"a").digest(2_500_000),
  "a.zip": hashlib.shake_256(b"b").digest(1_000),
}
MD5 = {name: hashlib.md5(data).hexdigest() for name, data in FILES.items()}


class Server(http.server.ThreadingHTTPServer):
  """Serves files whole or in part, except for the faults of its next answers.

  Attributes:
    files: bytes by name.
    faults: the faults of the answers to come: None; a status; "drop", half of the
      requested bytes; "whole", the whole file whatever was requested; or bytes to send
      in its place.
    asked: (name, place in the file) of each request.
    headers: the headers of an answer with a fault's status.
  """

  daemon_threads = True

  def __init__(self):
    super().__init__(("127.0.0.1", 0), Handler)
    self.files, self.faults, self.asked, self.headers = dict(FILES), [], [], {}

  def handle_error(self, request, client_address):
    """Clients hang up as they like."""

  @property
  def url(self) -> str:
    return f"http://127.0.0.1:{self.server_port}/{{name}}?download=1"


class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"

  def do_GET(self):
    server = self.server
    name = self.path.strip("/").partition("?")[0]
    fault = server.faults.pop(0) if server.faults else None
    place = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
    start = int(place[1]) if place else 0
    server.asked.append((name, start))
    if isinstance(fault, int) or name not in server.files:
      self._answer(fault or 404, b"", server.headers)
      return
    data = fault if isinstance(fault, bytes) else server.files[name]
    if fault == "whole":
      place, start = None, 0
    if start and start >= len(data):
      self._answer(416, b"")
      return
    end = (start + len(data)) // 2 if fault == "drop" else len(data)
    extent = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
    length = len(data) - start
    self._answer(
      206 if place else 200, data[start:end], extent if place else {}, length
    )
    self.close_connection |= fault == "drop"

  def _answer(self, status, body, headers=(), length=None):
    self.send_response(status)
    for key, value in dict(headers).items():
      self.send_header(key, value)
    self.send_header("Content-Length", str(len(body) if length is None else length))
    self.end_headers()
    self.wfile.write(body)

  def log_message(self, *args):
    pass


@pytest.fixture
def server(monkeypatch):
  """A server; three attempts, without waits between them."""
  retries = download.RETRIES.new(total=2, backoff_factor=0)
  monkeypatch.setattr(download, "RETRIES", retries)
  with Server() as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def fetch(server, folder, files=MD5):
  download.download_record(folder, url=server.url, record=files)


def contents(folder):
  paths = (path for path in folder.iterdir() if path.name != ".lock")
  return {path.name: path.read_bytes() for path in paths}


def test_files_are_fetched_once(server, tmp_path):
  fetch(server, tmp_path / "new" / "folder")
  assert contents(tmp_path / "new" / "folder") == FILES
  # Each file is asked for its size, then for its bytes.
  assert server.asked == [("a.z01", 0), ("a.zip", 0)] * 2
  fetch(server, tmp_path / "new" / "folder")
  assert len(server.asked) == 4


def test_only_what_is_missing_is_fetched(server, tmp_path):
  (tmp_path / "a.z01").write_bytes(b"mine")
  fetch(server, tmp_path)
  assert contents(tmp_path) == FILES | {"a.z01": b"mine"}
  assert server.asked == [("a.zip", 0)] * 2


def test_a_dropped_connection_is_taken_up_where_it_broke(server, tmp_path):
  server.faults = [None, None, "drop", "drop"]
  fetch(server, tmp_path)
  assert contents(tmp_path) == FILES
  starts = [start for name, start in server.asked[2:] if name == "a.z01"]
  block = download.DOWNLOAD_BLOCK_BYTES
  assert starts[0] == 0
  assert 1_250_000 - block < starts[1] <= 1_250_000
  assert 1_875_000 - block < starts[2] <= 1_875_000


def test_drops_that_bring_bytes_are_not_counted(server, tmp_path):
  server.faults = [None, None, *["drop"] * 5]
  fetch(server, tmp_path)
  assert contents(tmp_path) == FILES


def test_a_later_run_takes_up_what_an_earlier_left(server, tmp_path):
  (tmp_path / "a.z01.partial").write_bytes(FILES["a.z01"][:700_000])
  (tmp_path / "a.zip.partial").write_bytes(FILES["a.zip"])
  fetch(server, tmp_path)
  assert contents(tmp_path) == FILES
  assert server.asked[2:] == [("a.z01", 700_000), ("a.zip", 1_000)]


def test_a_server_that_sends_no_parts_sends_all_again(server, tmp_path):
  server.faults = [None, None, "drop", "whole"]
  fetch(server, tmp_path)
  assert contents(tmp_path) == FILES
  assert [name for name, _ in server.asked[2:]] == ["a.z01", "a.z01", "a.zip"]
  assert server.asked[3][1] > 1_000_000


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server, tmp_path, status):
  server.faults = [status, None, None, status]
  fetch(server, tmp_path)
  assert contents(tmp_path) == FILES


def test_a_server_is_asked_again_when_it_says(server, tmp_path):
  server.headers = {"Retry-After": "1"}
  server.faults = [503]
  start = time.monotonic()
  fetch(server, tmp_path)
  assert 1 <= time.monotonic() - start < 5
  assert contents(tmp_path) == FILES


def test_a_server_that_stays_busy_is_given_up(server, tmp_path):
  server.faults = [None, None, *[503] * 3]
  with pytest.raises(UserError, match=r"a.z01.* cannot be downloaded \(503 ") as info:
    fetch(server, tmp_path)
  assert "\n" not in str(info.value)
  assert len(server.asked) == 5
  assert contents(tmp_path) == {}


def test_a_server_that_drops_without_a_byte_more_is_given_up(server, tmp_path):
  (tmp_path / "a.z01.partial").write_bytes(FILES["a.z01"][:-1])
  server.faults = [None, None, *["drop"] * 3]
  with pytest.raises(UserError, match="the part downloaded so far is kept"):
    fetch(server, tmp_path)
  assert contents(tmp_path) == {"a.z01.partial": FILES["a.z01"][:-1]}


def test_a_server_that_is_not_there_is_given_up(server, tmp_path):
  server.server_close()
  with pytest.raises(UserError, match="cannot be downloaded .*refused"):
    fetch(server, tmp_path)


def test_a_server_that_falls_silent_is_asked_again(server, tmp_path, monkeypatch):
  monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
  answer, slow = Handler.do_GET, iter([True])

  def dawdle(self):
    time.sleep(0.5 * next(slow, False))
    answer(self)

  monkeypatch.setattr(Handler, "do_GET", dawdle)
  fetch(server, tmp_path)
  assert contents(tmp_path) == FILES


def test_a_file_that_came_broken_is_fetched_again(server, tmp_path):
  server.faults = [None, None, b"broken"]
  fetch(server, tmp_path)
  assert contents(tmp_path) == FILES
  assert server.asked[2:4] == [("a.z01", 0), ("a.z01", 0)]


def test_a_broken_beginning_is_fetched_again(server, tmp_path):
  (tmp_path / "a.z01.partial").write_bytes(bytes(3_000_000))
  (tmp_path / "a.zip.partial").write_bytes(bytes(10))
  fetch(server, tmp_path)
  assert contents(tmp_path) == FILES


def test_a_file_that_is_broken_on_the_server_is_refused(server, tmp_path):
  server.files["a.zip"] = b"broken"
  broken = hashlib.md5(b"broken").hexdigest()
  with pytest.raises(
    UserError,
    match=f"a.zip.* broken file twice: its md5 is {broken}, not {MD5['a.zip']}",
  ):
    fetch(server, tmp_path)
  assert contents(tmp_path) == {"a.z01": FILES["a.z01"]}


def test_a_file_that_the_server_lacks_is_named_before_any_comes(server, tmp_path):
  del server.files["a.zip"]
  with pytest.raises(UserError, match=r"a.zip\?download=1: the server answers 404 "):
    fetch(server, tmp_path)
  assert contents(tmp_path) == {}


def test_too_full_a_disk_is_noticed_before_any_comes(server, tmp_path, monkeypatch):
  (tmp_path / "a.z01.partial").write_bytes(FILES["a.z01"][:1_500_000])
  usage, free = shutil.disk_usage(tmp_path), [1_000_999, 1_001_000]
  monkeypatch.setattr(
    shutil, "disk_usage", lambda folder: usage._replace(free=free.pop(0))
  )
  with pytest.raises(UserError, match="takes 0.0 GB more, and the disk has 0.0 GB"):
    fetch(server, tmp_path)
  assert len(server.asked) == 2
  fetch(server, tmp_path)
  assert contents(tmp_path) == FILES


def test_check_md5_names_every_broken_file_and_no_missing_one(tmp_path):
  for name, data in FILES.items():
    (tmp_path / name).write_bytes(data)
  expected = MD5 | {"absent.zip": "0" * 32}
  download.check_md5(epath.Path(tmp_path), expected)
  for name in FILES:
    (tmp_path / name).write_bytes(b"broken")
  broken = hashlib.md5(b"broken").hexdigest()
  with pytest.raises(UserError) as info:
    download.check_md5(epath.Path(tmp_path), expected)
  for name in FILES:
    line = f"{tmp_path / name} is broken: its md5 is {broken}, not {MD5[name]}"
    assert line in str(info.value)
  assert "absent" not in str(info.value)
  assert "\n" not in str(info.value)


def test_the_record_is_the_ten_files_of_zenodo():
  assert len(set(download.RECORD_MD5.values())) == len(download.RECORD_MD5) == 10
  assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in download.RECORD_MD5.values())
  parts = {"dev": [*"12345"], "eval": ["1"]}
  for name, numbers in parts.items():
    assert f"FSD50K.{name}_audio.zip" in download.RECORD_MD5
    for number in numbers:
      assert f"FSD50K.{name}_audio.z0{number}" in download.RECORD_MD5
