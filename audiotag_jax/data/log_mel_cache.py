"""Log-mels of a prepared set, cached as float16 beside its shards, written once.

Each front-end and normalisation has a folder with the log-mels of whole clips. With
PANNs' front-end, log-mels take a fifth of the audio's space.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator

import ml_collections
import numpy as np
import tensorflow as tf
from absl import logging
from etils import epath
from tqdm import tqdm

from audiotag_jax import files
from audiotag_jax.data import records
from audiotag_jax.data.clips import ClipIndex, decode, normalize
from audiotag_jax.frontend import log_mel_tf, mel

# File that is written last: a cache without it is not finished.
PARAMS_FILE = "params.json"


def cache_log_mels(
  clips: ClipIndex, folder: epath.Path, config: ml_collections.ConfigDict
) -> records.Ranges:
  """Computes the log-mels of a prepared set, unless they are cached already.

  After a kill, the next call computes the unfinished shards.

  Args:
    clips: all clips of the set, in record order.
    folder: the set's folder.
    config: the config, of which only the front-end and `data.normalize` matter.

  Returns:
    The place of each clip's <float16>[frames, num_mels].
  """
  params = mel.LogMelParams(**config.frontend)
  described = {**dataclasses.asdict(params), "normalize": config.data.normalize}
  text = json.dumps(described, indent=2, sort_keys=True)
  # The backslash is a slip, kept because the names of existing caches depend on it.
  key = hashlib.sha256(f"{text}\\n".encode()).hexdigest()[:12]
  cache = folder / f"log_mels-{key}"
  shard = clips.records.file
  paths = [cache / f"{i:05d}.f16" for i in range(len(clips.records.paths))]
  if not (cache / PARAMS_FILE).exists():
    logging.info("Computing the log-mels of %d clips into %s.", len(clips), cache)
    with tqdm(total=len(clips), desc="log-mels", unit="clip", disable=None) as bar:
      for i, path in enumerate(paths):
        of_shard = np.flatnonzero(shard == i)
        if not path.exists():
          rows = _log_mels(clips, of_shard, params, config.data)
          files.write_whole(path, functools.partial(_write, rows=rows, bar=bar))
        else:
          bar.update(len(of_shard))
    files.write_text(cache / PARAMS_FILE, f"{text}\n")
  num_bytes = 2 * params.num_mels * params.num_frames(clips.num_samples)
  return records.Ranges(
    tuple(map(str, paths)), shard, records.start_in_shard(num_bytes, shard), num_bytes
  )


def _log_mels(
  clips: ClipIndex,
  of_shard: np.ndarray,
  params: mel.LogMelParams,
  data: ml_collections.ConfigDict,
) -> Iterator[np.ndarray]:
  """Yields the log-mels <float16>[frames, num_mels] of clips, in order."""

  def read(clip: np.ndarray) -> bytes:
    return clips.read(clip[None])[0]

  def log_mel(clip: tf.Tensor) -> tf.Tensor:
    record = tf.ensure_shape(tf.numpy_function(read, [clip], tf.string), [])
    waveform = decode(record, clips.features)
    waveform = normalize(waveform, data)
    return tf.cast(log_mel_tf.log_mel(waveform, params), tf.float16)

  dataset = tf.data.Dataset.from_tensor_slices(of_shard)
  return dataset.map(log_mel, tf.data.AUTOTUNE).as_numpy_iterator()


def _write(path: epath.Path, rows: Iterator[np.ndarray], bar: tqdm) -> None:
  with path.open("wb") as file:
    for row in rows:
      file.write(row.tobytes())
      bar.update()
