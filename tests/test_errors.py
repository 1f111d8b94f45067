import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from audiotag_jax.errors import UserError, exit_on_user_error


def line_of(error):
  """The line that a command prints whose main raises an error."""

  @exit_on_user_error
  def main():
    raise error

  with pytest.raises(SystemExit) as exit_:
    main()
  return exit_.value.code


@pytest.mark.parametrize(
  ("error", "line"),
  [
    (UserError("no such \x1b[2Jname\nof a file"), r"no such \x1b[2Jname of a file"),
    (
      OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/runs/a"),
      "/runs/a cannot be read or written (No space left on device): free some space, "
      "or give a path on another disk",
    ),
    (
      OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
      "a file cannot be read or written (No space left on device): free some space, or "
      "give a path on another disk",
    ),
    (
      PermissionError(errno.EACCES, os.strerror(errno.EACCES), b"/r/\xff"),
      r"/r/\udcff cannot be read or written (Permission denied): change its "
      "permissions, or give another path",
    ),
    (
      OSError(errno.EROFS, os.strerror(errno.EROFS), "/a", None, "/b"),
      "/a or /b cannot be read or written (Read-only file system): give a path on a "
      "disk that can be written to",
    ),
    (
      OSError(errno.EIO, os.strerror(errno.EIO), 3),
      "3 cannot be read or written (Input/output error): look at the disk and the "
      "path, and try again",
    ),
    (OSError("late"), "a file cannot be read or written (late): look at the disk and "
      "the path, and try again"),
    (
      MemoryError("Unable to allocate 7 EiB"),
      "there is not enough memory (Unable to allocate 7 EiB): use smaller batches or "
      "inputs",
    ),
    (MemoryError(), "there is not enough memory: use smaller batches or inputs"),
  ],
)  # fmt: skip
def test_what_a_user_can_mend_is_one_line(error, line):
  assert line_of(error) == f"error: {line}"


def test_a_full_disk_names_the_file_that_did_not_fit(tmp_path):
  @exit_on_user_error
  def main():
    path = tmp_path / "a.json"
    with open("/dev/full", "wb", buffering=0) as file:
      file.write(path.name.encode())

  with pytest.raises(SystemExit) as exit_:
    main()
  assert str(exit_.value.code).startswith(
    f"error: {tmp_path}/a.json cannot be read or written (No space left on device)"
  )


def test_a_fault_of_the_code_keeps_its_traceback():
  @exit_on_user_error
  def main():
    raise ValueError("a fault")

  with pytest.raises(ValueError, match="a fault"):
    main()


# A command whose output nobody reads: by print, by tqdm, by --help, or by its errors.
UNREAD = """
import argparse, os, sys
from tqdm import tqdm
from audiotag_jax.errors import UserError, exit_on_user_error

@exit_on_user_error
def main():
  how = sys.argv[1]
  if how == "help":
    argparse.ArgumentParser().parse_args(["--help"])
  if how == "stderr":
    os.dup2(1, 2)
    print("a line", file=sys.stderr)
  for i in tqdm(range(3), disable=how != "bar"):
    print("a line") if how == "print" else tqdm.write("a line")
    if how == "many":
      sys.stdout.write("x" * 100_000)
  if how == "exit":
    sys.exit(3)
  if how == "mistake":
    raise UserError("a mistake")

main()
"""


@pytest.mark.parametrize(
  ("how", "code", "line"),
  [
    *((how, 141, "") for how in ("print", "write", "many", "stderr")),
    ("help", 0, ""),
    ("exit", 3, ""),
    ("mistake", 1, "error: a mistake\n"),
  ],
)
def test_a_reader_that_goes_away_ends_the_command_quietly(how, code, line):
  read_end, write_end = os.pipe()
  os.close(read_end)
  command = [sys.executable, "-c", UNREAD, how]
  env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
  env["PYTHONUNBUFFERED"] = ""  # Short output is then written at the end.
  done = subprocess.run(
    command, stdout=write_end, stderr=subprocess.PIPE, text=True, env=env
  )
  os.close(write_end)
  assert (done.returncode, done.stderr) == (code, line)
