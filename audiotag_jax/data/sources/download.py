"""FSD50K's files from Zenodo: downloaded, resumed after a break, and checked."""

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import requests
import urllib3
from etils import epath
from tqdm import tqdm

from audiotag_jax import files
from audiotag_jax.errors import UserError

ZENODO_URL = "https://zenodo.org/records/4060432/files/{name}?download=1"
# The md5 of each file of the record, as Zenodo states it.
RECORD_MD5 = {
  "FSD50K.ground_truth.zip": "ca27382c195e37d2269c4c866dd73485",
  "FSD50K.metadata.zip": "b9ea0c829a411c1d42adb9da539ed237",
  "FSD50K.dev_audio.z01": "faa7cf4cc076fc34a44a479a5ed862a3",
  "FSD50K.dev_audio.z02": "8f9b66153e68571164fb1315d00bc7bc",
  "FSD50K.dev_audio.z03": "1196ef47d267a993d30fa98af54b7159",
  "FSD50K.dev_audio.z04": "d088ac4e11ba53daf9f7574c11cccac9",
  "FSD50K.dev_audio.z05": "81356521aa159accd3c35de22da28c7f",
  "FSD50K.dev_audio.zip": "c480d119b8f7a7e32fdb58f3ea4d6c5a",
  "FSD50K.eval_audio.z01": "3090670eaeecc013ca1ff84fe4442aeb",
  "FSD50K.eval_audio.zip": "6fa47636c3a3ad5c7dfeba99f2637982",
}
HASH_BLOCK_BYTES = 2**20
# Bytes of a block; a connection that breaks off loses the block under way.
DOWNLOAD_BLOCK_BYTES = 2**16
TIMEOUT_S = 60
# Attempts in a row that bring no new bytes. The waits are 0, 2, 4, 8 … s, four minutes
# in all, or as long as the server asks.
RETRIES = urllib3.Retry(
  total=8,
  backoff_factor=1,
  status_forcelist={408, 429, *range(500, 600)},
  retry_after_max=600,
)

Result = TypeVar("Result")


def download_record(
  folder: Path, *, url: str = ZENODO_URL, record: dict[str, str] = RECORD_MD5
) -> None:
  """Downloads the files that a folder lacks.

  A file gets its name once it is whole and its md5 is right. Until then it is
  `NAME.partial`, and a later call downloads the rest. If another process downloads to
  the folder, the call waits.

  Args:
    folder: the folder to write to; created if it is missing.
    url: the address of a file, with `{name}` in place of the file's name.
    record: the files' md5s, by name.

  Raises:
    UserError: the disk has too little room or cannot be written; the server does not
      have a file, cannot be reached or stops sending for minutes; a file is broken
      twice.
  """
  if all((folder / name).exists() for name in record):
    return
  advice = "make room, or choose another folder; the part downloaded so far is kept"
  with (
    files.written(folder, advice),
    files.owned(folder / ".lock", f"the folder {folder}", wait=True),
  ):
    _download_missing(folder, url, record)


def _download_missing(folder: Path, url: str, record: dict[str, str]) -> None:
  names = [name for name in record if not (folder / name).exists()]
  with requests.Session() as session:
    # Bytes as they are stored, because compressed ones cannot be resumed in the middle.
    session.headers["Accept-Encoding"] = "identity"
    total = sum(_ask_size(session, url.format(name=name)) for name in names)
    fetched = sum(_size(_partial(folder / name)) for name in names)
    _check_room(folder, total - fetched)
    with _progress_bar(total, initial=fetched) as bar:
      for name in names:
        _fetch(session, url.format(name=name), folder / name, record[name], bar)


def check_md5(folder: epath.Path, expected: dict[str, str]) -> None:
  """Checks the md5s of the expected files that a folder has.

  Args:
    folder: the folder of the files.
    expected: the files' md5s, by name.

  Raises:
    UserError: files are broken; the message names them all.
  """
  paths = [folder / name for name in expected if (folder / name).exists()]
  total = sum(path.stat().length for path in paths)
  with _progress_bar(total) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
    bar.set_description("checking")

    def update(num_bytes: int) -> None:
      with bar.get_lock():
        bar.update(num_bytes)

    found = list(pool.map(lambda path: _md5(path, update), paths))
  broken = [
    f"{path} is broken: its md5 is {md5}, not {expected[path.name]}"
    for path, md5 in zip(paths, found, strict=True)
    if md5 != expected[path.name]
  ]
  if broken:
    raise UserError("; ".join(broken) + ": download the broken files again")


def _md5(path: Path | epath.Path, update: Callable[[int], object]) -> str:
  digest = hashlib.md5(usedforsecurity=False)
  with path.open("rb") as file:
    while block := file.read(HASH_BLOCK_BYTES):
      digest.update(block)
      update(len(block))
  return digest.hexdigest()


def _progress_bar(total: int, initial: int = 0) -> tqdm:
  return tqdm(
    total=total,
    initial=initial,
    unit="B",
    unit_scale=True,
    smoothing=0.05,
    disable=None,
  )


def _partial(path: Path) -> Path:
  return path.with_name(f"{path.name}.partial")


def _size(path: Path) -> int:
  return path.stat().st_size if path.exists() else 0


def _check_room(folder: Path, num_bytes: int) -> None:
  free = shutil.disk_usage(folder).free
  if num_bytes > free:
    raise UserError(
      f"{folder}: the download takes {num_bytes / 1e9:.1f} GB more, and the disk has "
      f"{free / 1e9:.1f} GB free: make room, or choose another folder"
    )


def _ask_size(session: requests.Session, url: str) -> int:
  """Asks for a file's size in bytes; 0 if the server does not say.

  The request is a GET, because some servers that send the file do not answer HEAD.
  """

  def ask() -> int:
    with session.get(url, stream=True, timeout=TIMEOUT_S) as response:
      response.raise_for_status()
      return int(response.headers.get("Content-Length", 0))

  return _retrying(ask, url, progress=lambda: 0)


def _fetch(
  session: requests.Session, url: str, path: Path, md5: str, bar: tqdm
) -> None:
  """Downloads a file, resuming a partial one; starts over once if the md5 is wrong."""
  partial = _partial(path)
  for _ in range(2):
    bar.set_description(f"downloading {path.name}")
    _retrying(lambda: _append(session, url, partial, bar), url, lambda: _size(partial))
    bar.set_description(f"checking {path.name}")
    found = _md5(partial, lambda num_bytes: None)
    if found == md5:
      files.sync(partial)
      partial.rename(path)
      return
    bar.update(-_size(partial))
    partial.unlink()
  raise UserError(
    f"{url} gave a broken file twice: its md5 is {found}, not {md5}: try again later"
  )


def _append(session: requests.Session, url: str, partial: Path, bar: tqdm) -> None:
  """Downloads the rest of a file, or all of it if the server sends no parts."""
  start = _size(partial)
  headers = {"Range": f"bytes={start}-"} if start else {}
  with session.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
    if start and response.status_code == requests.codes.requested_range_not_satisfiable:
      return  # The file is complete.
    response.raise_for_status()
    if start and response.status_code != requests.codes.partial_content:
      bar.update(-start)
      start = 0
    with partial.open("ab" if start else "wb") as file:
      for block in response.iter_content(DOWNLOAD_BLOCK_BYTES):
        file.write(block)
        bar.update(len(block))


def _retrying(
  attempt: Callable[[], Result], url: str, progress: Callable[[], int]
) -> Result:
  """Makes attempts until one succeeds, or `RETRIES` in a row make no progress."""
  retries, furthest = RETRIES, progress()
  while True:
    try:
      return attempt()
    except requests.RequestException as error:
      response, reason = error.response, error
    if response is not None and not retries.is_retry("GET", response.status_code):
      raise UserError(
        f"{url}: the server answers {response.status_code} {response.reason}: check "
        "the address"
      ) from reason
    if progress() > furthest:
      retries, furthest = RETRIES, progress()
    try:
      retries = retries.increment("GET", url, error=reason)
    except urllib3.exceptions.MaxRetryError:
      raise UserError(
        f"{url} cannot be downloaded ({reason}): check the connection and start "
        "again; the part downloaded so far is kept"
      ) from reason
    retries.sleep(response.raw if response is not None else None)
