"""Log-mels of a prepared set, cached as float16 beside its shards, written once.

Each front-end and normalisation has a folder with the log-mels of whole clips. With
PANNs' front-end, log-mels take a fifth of the audio's space. Beside each file is one
more, with the checksums of its chunks as little-endian uint32.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import ml_collections
import numpy as np
import tensorflow as tf
from absl import logging
from etils import epath
from tqdm import tqdm

from audiotag_jax import files
from audiotag_jax.data import records
from audiotag_jax.data.clips import ClipIndex, Errors, decode, normalize
from audiotag_jax.errors import UserError
from audiotag_jax.frontend import log_mel_tf, mel

PARAMS_FILE = "params.json"
# Frames of a chunk: 2.6 s with PANNs' front-end. The checksums of AudioSet take 32 MB.
CHUNK_FRAMES = 256


def cache_log_mels(
  clips: ClipIndex, folder: epath.Path, config: ml_collections.ConfigDict
) -> records.Chunks:
  """Computes the log-mels of a prepared set, unless they are cached already.

  After a kill, the next call computes the unfinished shards.

  Args:
    clips: all clips of the set, in record order.
    folder: the set's folder.
    config: the config, of which only the front-end and `data.normalize` matter.

  Returns:
    The place of each clip's <float16>[frames, num_mels].

  Raises:
    UserError: the cache cannot be written, or a clip cannot be read.
  """
  params = mel.LogMelParams(**config.frontend)
  described = {**dataclasses.asdict(params), "normalize": config.data.normalize}
  text = json.dumps(described, indent=2, sort_keys=True)
  # The backslash is a slip, kept because the names of existing caches depend on it.
  key = hashlib.sha256(f"{text}\\n".encode()).hexdigest()[:12]
  cache = folder / f"log_mels-{key}"
  shard = clips.records.file
  names = [f"{i:05d}.f16" for i in range(len(clips.records.paths))]
  if _missing(cache, names):
    advice = "make room, or choose another --config.data.data_dir"
    with (
      files.written(cache, f"{advice}; the finished files are kept"),
      files.owned(cache / ".lock", f"the cache {cache}", wait=True),
    ):
      files.clear_leftovers(cache)
      files.write_text(cache / PARAMS_FILE, f"{text}\n")
      _write_missing(clips, cache, names, params, config.data)
  frame_bytes = 2 * params.num_mels
  num_bytes = frame_bytes * params.num_frames(clips.num_samples)
  chunk_bytes = frame_bytes * CHUNK_FRAMES
  num_chunks = -(-num_bytes // chunk_bytes)
  return records.Chunks(
    paths=tuple(str(cache / name) for name in names),
    file=shard,
    start=records.start_in_shard(num_bytes, shard),
    num_bytes=num_bytes,
    chunk_bytes=chunk_bytes,
    first_chunk=num_chunks.cumsum() - num_chunks,
    crcs=_read_crcs(cache, names, np.bincount(shard, num_chunks, len(names))),
  )


def _missing(cache: epath.Path, names: Sequence[str]) -> list[int]:
  """Lists the shards whose log-mels, or the checksums of these, are missing."""
  found = {path.name for path in cache.iterdir()} if cache.exists() else set()
  return [
    i for i, name in enumerate(names) if not found.issuperset({name, _crc_file(name)})
  ]


def _crc_file(name: str) -> str:
  return f"{name}.crc32c"


def _write_missing(
  clips: ClipIndex,
  cache: epath.Path,
  names: Sequence[str],
  params: mel.LogMelParams,
  data: ml_collections.ConfigDict,
) -> None:
  missing = _missing(cache, names)
  shard = clips.records.file
  total = int(np.isin(shard, missing).sum())
  logging.info("Computing the log-mels of %d clips into %s.", total, cache)
  with tqdm(total=total, desc="log-mels", unit="clip", disable=None) as bar:
    for i in missing:
      # New log-mels must not meet old checksums after a kill.
      (cache / _crc_file(names[i])).unlink(missing_ok=True)
      rows = _log_mels(clips, np.flatnonzero(shard == i), params, data)
      _write_shard(cache / names[i], rows, 2 * params.num_mels * CHUNK_FRAMES, bar)


def _write_shard(
  path: epath.Path, rows: Iterator[np.ndarray], chunk_bytes: int, bar: tqdm
) -> None:
  """Writes log-mels and, once they have their name, their checksums."""
  crcs: list[int] = []

  def write(partial: epath.Path) -> None:
    with partial.open("wb") as file:
      for row in rows:
        log_mel = row.tobytes()
        crcs.extend(records.chunk_crcs(log_mel, chunk_bytes))
        file.write(log_mel)
        bar.update()

  files.write_whole(path, write)
  data = np.array(crcs, "<u4").tobytes()
  files.write_whole(
    path.with_name(_crc_file(path.name)), lambda partial: partial.write_bytes(data)
  )


def _read_crcs(
  cache: epath.Path, names: Sequence[str], num_chunks: np.ndarray
) -> np.ndarray:
  """Reads the checksums <uint32>[chunks] of all files; raises `UserError`."""
  paths = [cache / _crc_file(name) for name in names]
  with ThreadPoolExecutor(records.NUM_REMOTE_READS) as pool:
    found = list(pool.map(lambda path: path.read_bytes(), paths))
  for path, data, count in zip(paths, found, num_chunks, strict=True):
    if len(data) != 4 * count:
      raise UserError(
        f"{path} has {len(data)} bytes, not {4 * count:.0f}: delete it and start the "
        "same command again, which then computes its log-mels"
      )
  return np.frombuffer(b"".join(found), "<u4")


def _log_mels(
  clips: ClipIndex,
  of_shard: np.ndarray,
  params: mel.LogMelParams,
  data: ml_collections.ConfigDict,
) -> Iterator[np.ndarray]:
  """Yields the log-mels <float16>[frames, num_mels] of clips, in order."""

  errors = Errors()

  def read(clip: np.ndarray) -> bytes:
    return clips.read(clip[None])[0]

  def log_mel(clip: tf.Tensor) -> tf.Tensor:
    record = tf.numpy_function(errors.kept(read), [clip], tf.string)
    waveform = decode(tf.ensure_shape(record, []), clips.features)
    waveform = normalize(waveform, data)
    return tf.cast(log_mel_tf.log_mel(waveform, params), tf.float16)

  dataset = tf.data.Dataset.from_tensor_slices(of_shard)
  return errors.raised(dataset.map(log_mel, tf.data.AUTOTUNE).as_numpy_iterator())
