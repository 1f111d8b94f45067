"""A step costs no more than it must: one compilation, and no transfer but its batch."""

import jax
import pytest

from audiotag_jax import parallel
from audiotag_jax.training import loop, steps, train

pytestmark = pytest.mark.slow


def test_steps_compile_once_and_move_only_their_batches(
  tiny_config, tmp_path, monkeypatch
):
  tiny_config.train.num_steps = 6
  tiny_config.train.log_every_steps = 3
  tiny_config.train.eval_every_steps = 6
  events, traced = [], []
  train_step, create = steps.train_step, loop.pmap_train_step
  shard, fetch = parallel.shard, parallel.unreplicate

  def note_trace(*args, **kwargs):
    traced.append(args)
    return train_step(*args, **kwargs)

  def create_guarded(run):
    step = create(run)

    def guarded(state, batch):
      events.append("step")
      with jax.transfer_guard("disallow"):
        return step(state, batch)

    return guarded

  def note_shard(batch):
    if "mask" not in batch:  # Only batches of evaluation have one.
      events.append("batch")
    return shard(batch)

  def note_fetch(tree):
    if isinstance(tree, dict) and "loss" in tree:
      events.append("fetch")
    return fetch(tree)

  monkeypatch.setattr(steps, "train_step", note_trace)
  monkeypatch.setattr(loop, "pmap_train_step", create_guarded)
  monkeypatch.setattr(parallel, "shard", note_shard)
  monkeypatch.setattr(parallel, "unreplicate", note_fetch)
  train.train_and_evaluate(tiny_config, str(tmp_path / "run"))
  assert len(traced) == 1  # A function is traced each time it is compiled.
  # The metrics of three steps are fetched when they are logged.
  assert events == 2 * (3 * ["batch", "step"] + 3 * ["fetch"])
