"""A stand-in for remote storage."""

import pytest
from etils import epath
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """Makes etils open gs://bucket as a local folder; it would ask TensorFlow."""

  class Bucket(DirFileSystem):
    protocol = ("gs", "gcs")

    def __init__(self, **_):
      super().__init__(path=str(tmp_path / "gs"), fs=LocalFileSystem(auto_mkdir=True))

    @classmethod
    def _strip_protocol(cls, path):
      path = str(path)
      for prefix in ("gs://", "gcs://"):
        path = path.removeprefix(prefix)
      return path.rstrip("/")

  monkeypatch.setattr(epath.gpath, "_is_tf_installed", lambda: False)
  backend = type(epath.backend.fsspec_backend)
  monkeypatch.setattr(backend, "_get_filesystem", lambda self, name: Bucket())
  return tmp_path / "gs/bucket"
