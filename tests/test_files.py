import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audiotag_jax import files
from audiotag_jax.errors import UserError


def test_text_and_json_are_written_whole(tmp_path):
  path = tmp_path / "new" / "a.json"
  files.write_json(path, {"name": "烏", "share": 0.5})
  assert path.read_bytes() == b'{\n  "name": "\\u70cf",\n  "share": 0.5\n}\n'
  files.write_json(path, {"name": "烏"}, ensure_ascii=False)
  assert json.loads(path.read_text(encoding="utf-8")) == {"name": "烏"}
  files.write_text(path, "é\n")
  assert path.read_bytes() == "é\n".encode()
  assert list(path.parent.iterdir()) == [path]


def test_a_value_that_json_lacks_leaves_the_file_as_it_was(tmp_path):
  path = tmp_path / "a.json"
  files.write_json(path, 1)
  with pytest.raises(TypeError):
    files.write_json(path, {1j})
  assert path.read_text() == "1\n"


def test_an_output_is_overwritten_only_if_asked(tmp_path):
  files.check_output(tmp_path / "none", overwrite=False)
  files.check_output(tmp_path, overwrite=True)
  with pytest.raises(UserError, match="exists: give another --output, or --overwrite"):
    files.check_output(tmp_path, overwrite=False)


def test_a_folder_to_write_to_is_checked_without_being_created(tmp_path, monkeypatch):
  files.check_folder(tmp_path)
  files.check_folder(tmp_path / "a" / "b")
  monkeypatch.chdir(tmp_path)
  files.check_folder(Path("a/b"))
  assert not (tmp_path / "a").exists()
  (tmp_path / "file").write_text("")
  (tmp_path / "link").symlink_to(tmp_path / "nowhere")
  for name, nearest in (("file", "file"), ("file/a", "file"), ("link", "link")):
    message = f"--output={name}: {tmp_path / nearest} is not a folder: give another"
    with pytest.raises(UserError, match=message):
      files.check_folder(Path(name))


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path, monkeypatch):
  # Faked, because root may write to any folder.
  monkeypatch.setattr(files.os, "access", lambda *_: False)
  with pytest.raises(UserError, match=f"{tmp_path} may not be written to: "):
    files.check_folder(tmp_path / "out")


def test_a_write_that_fails_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path):
  path = tmp_path / "a.txt"
  path.write_text("old")

  def fill_the_disk(partial):
    partial.write_text("ne")
    raise OSError(errno.ENOSPC, "No space left on device")

  with pytest.raises(OSError, match="No space"):
    files.write_whole(path, fill_the_disk)
  assert path.read_text() == "old"
  assert list(tmp_path.iterdir()) == [path]


def test_a_device_is_not_replaced_by_a_file(tmp_path):
  pipe = tmp_path / "pipe"  # stands in for a device, such as /dev/null
  os.mkfifo(pipe)
  with pytest.raises(UserError, match="pipe is not a file: give a file"):
    files.write_text(pipe, "text")
  assert pipe.is_fifo()


def test_two_writers_of_one_file_do_not_meet(tmp_path):
  path = tmp_path / "a.txt"

  def write_while_another_does(partial):
    files.write_text(path, "first")
    partial.write_text("second")

  files.write_whole(path, write_while_another_does)
  assert path.read_text() == "second"
  assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
  folder = tmp_path / "model"
  for text in ("old", "new"):
    with files.replaced_folder(folder) as new:
      (new / "a.txt").write_text(text)
  assert (folder / "a.txt").read_text() == "new"
  with pytest.raises(TypeError), files.replaced_folder(folder) as new:
    files.write_json(new / "a.txt", {1j})
  rename = Path.rename

  def refuse_the_second(path, target):
    if path.suffix == ".new":
      raise OSError(errno.EIO, "Input/output error")
    return rename(path, target)

  monkeypatch.setattr(Path, "rename", refuse_the_second)
  with pytest.raises(OSError, match="Input/output"), files.replaced_folder(folder):
    pass
  assert (folder / "a.txt").read_text() == "new"
  assert list(tmp_path.iterdir()) == [folder]


def test_leftovers_of_dead_writers_are_cleared_and_the_only_copy_is_restored(tmp_path):
  for name in ("model", ".model.0a1b.old", ".export.77.old", ".export.0a1b.new"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.txt").write_text(name)
  for name in (
    ".a.json.0a1b2c3d.partial",
    ".a.json.partial",
    "a.json",
    ".lock",
    ".new",
  ):
    (tmp_path / name).write_text(name)
  files.clear_leftovers(tmp_path)
  names = {"model", "export", "a.json", ".lock", ".new"}
  assert {path.name for path in tmp_path.iterdir()} == names
  assert (tmp_path / "model/a.txt").read_text() == "model"
  assert (tmp_path / "export/a.txt").read_text() == ".export.77.old"
  files.clear_leftovers(tmp_path / "none")


OWN = """
import sys, time
from audiotag_jax import files
with files.owned(sys.argv[1], "the set", wait=len(sys.argv) > 2):
  print("owned", flush=True)
  time.sleep(60 if len(sys.argv) == 2 else 0)
"""


@pytest.fixture
def start_owner(tmp_path):
  """Starts a process that owns a lock; with `wait`, waits for it and then ends."""
  processes = []

  def start(*wait):
    command = [sys.executable, "-c", OWN, str(tmp_path / "sets/.lock"), *wait]
    processes.append(
      subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
      )
    )
    return processes[-1]

  yield start
  for process in processes:
    process.kill()
    process.communicate()


def test_a_lock_has_one_owner_until_the_owner_is_killed(tmp_path, start_owner):
  first = start_owner()
  assert first.stdout.readline() == "owned\n"
  lock = tmp_path / "sets/.lock"
  in_use = f"the set is in use by process {first.pid} on {socket.gethostname()}: wait"
  with pytest.raises(UserError, match=in_use), files.owned(lock, "the set"):
    pass
  second = start_owner("wait")
  line = second.stderr.readline()
  assert f"in use by process {first.pid} on" in line
  assert line.endswith(": waiting until it ends.\n")
  first.kill()
  assert second.communicate(timeout=30) == ("owned\n", "")
  with files.owned(lock, "the set"):
    assert str(os.getpid()) in lock.read_text()


def test_threads_of_a_process_share_a_lock(tmp_path):
  owners, most = [], 0

  def own(number):
    nonlocal most
    with files.owned(tmp_path / ".lock", "the set"):
      owners.append(number)
      most = max(most, len(owners))
      time.sleep(0.01)
      owners.remove(number)
    return number

  with ThreadPoolExecutor(8) as pool:
    assert list(pool.map(own, range(40))) == list(range(40))
  assert most > 1


def test_a_file_system_without_locks_costs_a_warning(tmp_path, monkeypatch, caplog):
  def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(fcntl, "flock", refuse)
  with files.owned(tmp_path / ".lock", "the set"):
    pass
  assert "the set cannot be locked (No locks available)" in caplog.text
  with files.owned("gs://bucket/.lock", "the set in a bucket"):
    pass
