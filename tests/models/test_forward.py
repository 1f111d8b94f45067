"""Outputs of compiled models, compared with the same model op by op in float64."""

import functools

import jax
import numpy as np
import op_by_op
import pytest
import tiny_models

from audiotag_jax.models.create import create_from_description
from audiotag_jax.panns.architectures import ARCHITECTURES

pytestmark = pytest.mark.slow

# Models in every run of the tests; the others are marked as exhaustive.
OFTEN = ("crnn", "Cnn6", "LeeNet11")


def create(name: str):
  if name == "crnn":
    return create_from_description(tiny_models.describe("crnn")), (4, 51, 16)
  return tiny_models.narrow_panns(name, num_classes=5)


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[] if name in OFTEN else pytest.mark.exhaustive)
    for name in ("crnn", *ARCHITECTURES)
  ],
)
def test_outputs_are_those_of_the_definition(name, record_property):
  """At three lengths, within 2e-5 of an output's largest value."""
  model, (_, length, *mels) = create(name)
  variables = tiny_models.random_variables(model)

  def apply(variables, x, dtype=np.float32):
    return model.clone(dtype=dtype).apply(variables, x, train=False)

  compiled = jax.jit(apply)
  apply_float64 = functools.partial(apply, dtype=np.float64)
  rng = np.random.default_rng(0)
  for stretch in (1.0, 1.37, 2.0):
    x = rng.standard_normal((2, round(stretch * length), *mels))
    x = np.float32(15.0 * x - 40.0 if mels else 0.1 * x)  # dB, or full scale
    defined = op_by_op.evaluate(apply_float64, variables, x)
    for key, ours in compiled(variables, x).items():
      expected = defined[key]
      assert np.ptp(expected, axis=0).max() > 1e-4
      error = np.abs(np.asarray(ours) - expected).max() / np.abs(expected).max()
      record_property(f"{key}, {x.shape}", float(error))
      assert error <= 2e-5, (key, x.shape, error)
