import importlib.metadata

import pytest

from audiotag_jax import logs


@pytest.mark.parametrize(("version", "is_bad"), [("0.10.2", True), ("0.12.0.1", False)])
def test_a_jax_that_computes_wrong_is_warned_of(version, is_bad, monkeypatch):
  monkeypatch.setattr(importlib.metadata, "version", {"jax": version}.get)
  warned = []
  monkeypatch.setattr(logs.logging, "warning", lambda *args: warned.append(args))
  logs.warn_of_bad_jax()
  assert [args[0] % args[1:] for args in warned] == [
    "jax 0.10.2 computes some sums wrong on a CPU "
    "(https://github.com/jax-ml/jax/issues/39103). The models of this package were "
    "compared with float64 and are right with it. Python 3.12 and newer get a jax "
    "without this fault."
  ][:is_bad]
