"""Faults of jax releases, in the small programs of their reports.

Gradients and scores that such a release computes are wrong whatever this package does.
"""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest

# The release to blame for a failure. Python 3.11 has no better one than 0.10.2 yet.
RELEASE = f"jax {jax.__version__} with jaxlib {jaxlib.__version__}"

pytestmark = [
  pytest.mark.slow,
  pytest.mark.xfail(
    jax.__version__ == "0.10.2", reason="a known-bad release", strict=True
  ),
]


def test_a_jitted_sum_is_right():
  """jax#39103: the last row came out 1071645696 on 0.10.2, and silently so."""
  rows = 32_769
  x = jnp.zeros((rows, 3)).at[:, 0].set(jnp.arange(rows))

  @jax.jit
  @jax.vmap
  def squared_norm(row):
    return jnp.sum((jnp.eye(3) @ row) ** 2)

  expected = np.arange(rows, dtype=np.float64) ** 2
  np.testing.assert_allclose(squared_norm(x), expected, rtol=1e-6, err_msg=RELEASE)


@pytest.mark.parametrize(
  ("report", "left", "right", "axis"),
  [
    # This crashes 0.10.2 and 0.11.0.
    ("jax#39257", (10, 4, 6, 1, 1, 1, 1, 1), (10, 4, 6, 9, 9, 9, 9, 9), 2),
    # This crashes 0.10.2.
    ("jax#40412", (3, 1, 2, 2, 8, 8, 8), (3, 1, 2, 2, 8, 8, 8), 3),
  ],
)
def test_a_sum_of_products_of_many_axes_does_not_crash(report, left, right, axis):
  program = f"""
    import jax
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.standard_normal({left}, np.float32)
    y = rng.standard_normal({right}, np.float32)
    log_sum = jax.jit(lambda x, y: jax.numpy.log(1e3 + (x * y).sum({axis})))
    expected = np.log(1e3 + (x.astype(np.float64) * y).sum({axis}))
    np.testing.assert_allclose(log_sum(x, y), expected, rtol=1e-6)
  """
  command = [sys.executable, "-c", textwrap.dedent(program)]
  done = subprocess.run(command, capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, (
    f"{report}: {RELEASE} ended with {done.returncode}: {done.stderr}"
  )
