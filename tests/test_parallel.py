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
