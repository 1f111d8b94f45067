import importlib.util
import signal

import jax
import numpy as np
import pytest

from audiotag_jax import parallel
from audiotag_jax.errors import UserError


def test_a_batch_goes_to_the_devices_and_comes_back_in_order():
  batch = {"x": np.arange(48.0).reshape(16, 3)}
  sharded = parallel.shard(batch)
  assert sharded["x"].shape == (8, 2, 3)
  out = parallel.pmap(lambda b: {"x": 2 * b["x"]})(sharded)
  np.testing.assert_array_equal(parallel.gather(out)["x"], 2 * batch["x"])


def test_a_tree_is_the_same_after_replication():
  tree = {"a": np.arange(6.0).reshape(2, 3), "b": np.float32(3)}
  replicated = parallel.replicate(tree)
  assert replicated["a"].shape == (8, 2, 3)
  jax.tree.map(np.testing.assert_array_equal, parallel.unreplicate(replicated), tree)


def test_a_step_on_what_it_returned_is_not_compiled_again():
  num_traces = 0

  def step(state):
    nonlocal num_traces
    num_traces += 1
    return jax.tree.map(lambda x: x + 1, state)

  pmapped = parallel.pmap(step, donate_argnums=(0,))
  host = {"a": np.arange(64.0, dtype=np.float32)}
  state = pmapped(pmapped(parallel.replicate(host)))
  assert num_traces == 1
  expected = np.arange(64.0) + 2
  np.testing.assert_array_equal(parallel.unreplicate(state)["a"], expected)
  # The step reused its own buffers, not the host's.
  np.testing.assert_array_equal(host["a"], np.arange(64.0))


@pytest.mark.parametrize(("size", "parts"), [(16, 1), (16, 2), (64, 4)])
def test_sizes_that_can_be_shared_out(size, parts):
  parallel.check_divisible(size, "train.batch_size", parts)


@pytest.mark.parametrize(
  ("size", "parts", "message"),
  [
    (12, 1, "config.train.batch_size 12 is not divisible by 8 devices"),
    (24, 2, "24 is not divisible by 8 devices x 2 accumulation steps"),
  ],
)
def test_sizes_that_cannot(size, parts, message):
  with pytest.raises(UserError, match=message):
    parallel.check_divisible(size, "train.batch_size", parts)


class TestJoinedProcesses:
  """The decision whether this process joins others; test_processes.py joins them."""

  @pytest.fixture(autouse=True)
  def calls(self, monkeypatch):
    """The calls of `jax.distributed.initialize`, which finds no cluster."""
    calls = []

    def initialize(*args, **_):
      calls.append(args)
      raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for variable in parallel.PROCESS_COUNTS:
      monkeypatch.delenv(variable, raising=False)
    return calls

  @pytest.mark.parametrize("count", ["1", "", "many"])
  def test_a_process_without_others_is_alone(self, calls, monkeypatch, count):
    monkeypatch.setenv("SLURM_NTASKS", count)
    with parallel.joined_processes(None, None, None):
      assert not calls

  def test_one_process_of_several_can_be_told_to_be_alone(self, calls, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    with parallel.joined_processes(None, 1, None):
      assert not calls

  @pytest.mark.parametrize("variable", parallel.PROCESS_COUNTS)
  def test_processes_that_jax_does_not_find_are_refused(self, monkeypatch, variable):
    monkeypatch.setenv(variable, "4")
    with (
      pytest.raises(UserError, match=f"{variable}=4, but this process cannot join"),
      parallel.joined_processes(None, None, None),
    ):
      pass

  @pytest.mark.parametrize("given", [("a:1", None, 0), (None, 2, None), (None, 2, 0)])
  def test_flags_that_belong_together(self, given):
    with (
      pytest.raises(UserError, match="belong together"),
      parallel.joined_processes(*given),
    ):
      pass

  def test_flags_that_jax_refuses_are_one_line(self, calls):
    with (
      pytest.raises(UserError, match="process 2 of 2 cannot join: coordinator_address"),
      parallel.joined_processes("localhost:1", 2, 2),
    ):
      pass
    assert calls == [("localhost:1", 2, 2)]

  def test_a_tpu_library_without_a_tpu_changes_nothing(self, calls, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with (
      pytest.raises(KeyError, match="of the block"),
      parallel.joined_processes(None, None, None),
    ):
      raise KeyError("of the block")
    assert calls == [(None, None, None)]
