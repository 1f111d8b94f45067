import os
import subprocess
import sys

import pytest

from audiotag_jax import compilation_cache, config

PROGRAM = """
import sys
from audiotag_jax import compilation_cache
compilation_cache.use(*sys.argv[1:])
import jax
print(jax.jit(lambda x: x + 1)(2))
"""


def run(tmp_path, *args, **variables):
  """Compiles a program; returns the files of the user's folder."""
  env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
  env |= {"HOME": str(tmp_path), "JAX_PLATFORMS": "cpu", **variables}
  env.pop("XDG_CACHE_HOME", None)
  command = [sys.executable, "-c", PROGRAM, *args]
  done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
  assert (done.stdout, done.stderr) == ("3\n", "")
  return {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("*-cache")}


@pytest.mark.slow
def test_programs_are_kept_where_the_key_says(tmp_path):
  assert run(tmp_path, "") == set()
  assert run(tmp_path) == {".cache/audiotag_jax"}
  assert run(tmp_path, "~/own") == {".cache/audiotag_jax", "own"}


def test_the_key_is_the_user_s_cache_folder(monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
  folder = config.get_config().train.compilation_cache
  assert folder == compilation_cache.default_folder() == "/caches/audiotag_jax"
