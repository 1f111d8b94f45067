"""A data set before it is prepared: classes, clips and their audio files."""

import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from audiotag_jax.audio.files import AudioFile
from audiotag_jax.data.sources.archives import Member

SPLITS = ("train", "val", "eval")
NUM_STATS = 32


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
  """A recording, or a part of one, and its labels.

  Attributes:
    fname: its name, unique in the data set.
    audio: the file that holds it.
    labels: indices of its classes, ascending.
    split: one of `SPLITS`.
    start_s: where it starts in the file.
    end_s: where it ends in the file; None for the file's end.
  """

  fname: str
  audio: AudioFile
  labels: tuple[int, ...]
  split: str
  start_s: float = 0.0
  end_s: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Rejected:
  """A clip that is not prepared; `reason` follows the name, as "is missing" does."""

  fname: str
  split: str
  reason: str


@dataclasses.dataclass(frozen=True)
class Source:
  """A data set as its owner ships it, its lists read and checked.

  Attributes:
    dataset: a value of `config.data.dataset`.
    place: the file or folder it was read from.
    classes: the class names, in the order of the vocabulary.
    clips: in the order of the lists.
    rejected: rows of the lists that name no usable clip.
  """

  dataset: str
  place: epath.Path
  classes: tuple[str, ...] = dataclasses.field(repr=False)
  clips: tuple[Clip, ...] = dataclasses.field(repr=False)
  rejected: tuple[Rejected, ...] = dataclasses.field(default=(), repr=False)

  def fingerprint(self) -> str:
    """Hashes the classes, the rows and each audio file's name, size and time.

    Rejected rows count with their reasons.
    """
    digest = hashlib.sha256(repr((self.classes, self.rejected)).encode())
    # Many at once, because a bucket answers late.
    with ThreadPoolExecutor(NUM_STATS) as pool:
      for clip, stamp in zip(
        self.clips, pool.map(_stamp, (clip.audio for clip in self.clips)), strict=True
      ):
        part = (clip.fname, clip.labels, clip.split, clip.start_s, clip.end_s)
        digest.update(f"{part} {stamp}\n".encode())
    return digest.hexdigest()[:16]


def _stamp(audio: AudioFile) -> str:
  """Text that changes whenever an audio file does."""
  if isinstance(audio, Member):
    return f"{audio.name} {audio.num_bytes} {audio.crc}"
  try:
    stat = epath.Path(audio).stat()
  except (OSError, ValueError):
    return f"{audio.name} is missing"
  return f"{audio.name} {stat.length} {stat.mtime}"
