"""The form of a model that jax2onnx reads."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
from jax.extend import core

from audiotag_jax.inference import Tagger, export_onnx

pytestmark = pytest.mark.slow

CALLS = {"jit", "custom_jvp_call", "custom_vjp_call"}


@jax.custom_vjp
def double(x):
  return jnp.where(x > 0, 2 * x, 0.0)


double.defvjp(lambda x: (double(x), x), lambda x, gradient: (2 * gradient,))


class Summing(nn.Module):
  """Sums over frames, in a scan whose body calls functions.

  The embedding of whole numbers is exact, in any order of summation.
  """

  @nn.compact
  def __call__(self, x, *, train):
    rng = np.random.default_rng(0)
    weights = rng.integers(-2, 3, (x.shape[2], x.shape[2])).astype(np.float32)

    def step(carry, item):
      carry = carry + double(jax.nn.relu(item)) @ weights
      return carry, jnp.where(carry > 1, carry, 1.0)

    frames = jnp.moveaxis(double(x), 1, 0)
    total, kept = jax.lax.scan(step, jnp.zeros(x.shape[::2]), frames)
    return {"logits": total / 1024, "embedding": total + kept.sum(axis=0)}


def called(jaxpr):
  """The names of a jaxpr's primitives, including those in scans and functions."""
  for eqn in jaxpr.eqns:
    yield eqn.primitive.name
    for inner in core.jaxprs_in_params(eqn.params):
      yield from called(inner)


def test_functions_are_written_out_before_jax2onnx_reads_them(tmp_path, monkeypatch):
  import jax2onnx

  tagger = Tagger.load(tiny_models.write(tmp_path / "model"))
  tagger.model, tagger.variables = Summing(), {}
  rng = np.random.default_rng(1)
  shape = (2, 120, tagger.front_end.num_mels)
  x = rng.integers(-3, 4, shape).astype(np.float32)
  primitives, outputs = set(), []

  def to_onnx(function, inputs, **options):
    primitives.update(called(jax.make_jaxpr(function)(*inputs).jaxpr))
    outputs.extend(jax.export.export(jax.jit(function))(*inputs).call(x))
    return convert(function, inputs, **options)

  convert = jax2onnx.to_onnx
  monkeypatch.setattr(jax2onnx, "to_onnx", to_onnx)
  export_onnx.write_onnx(tagger, "log_mel", tmp_path / "model.onnx")

  def model(x):
    outputs = tagger.model.apply({}, x, train=False)
    return {"embedding": outputs["embedding"], "scores": nn.sigmoid(outputs["logits"])}

  assert set(called(jax.make_jaxpr(model)(x).jaxpr)) >= CALLS
  assert "scan" in primitives
  assert not primitives & CALLS
  expected = model(x)
  assert np.ptp(expected["scores"]) > 0.1
  written = export_onnx.load_onnx(tmp_path / "model.onnx")(x)
  for embedding, scores in (outputs, (written["embedding"], written["scores"])):
    np.testing.assert_array_equal(embedding, expected["embedding"])
    np.testing.assert_allclose(scores, expected["scores"], atol=1e-6)
