import numpy as np
import pytest

from audiotag_jax.reporting import formatting
from audiotag_jax.reporting.formatting import Estimate
from audiotag_jax.reporting.page import Cell


@pytest.mark.parametrize(
  ("value", "text"),
  [(0.12345, "0.123"), (-1.5, "−1.500"), (np.inf, "∞"), (np.nan, "–"), (None, "–")],
)
def test_numbers(value, text):
  assert formatting.number(value) == text


def test_cells():
  assert formatting.estimate_cell(Estimate(0.5, 0.4, 0.6)) == Cell(
    "0.500", "[0.400, 0.600]"
  )
  assert formatting.estimate_cell(Estimate(np.nan, np.nan, np.nan)) == Cell("–")
  assert formatting.difference_cell(Estimate(0.1, -0.1, 0.2)) == Cell(
    "+0.100", "[−0.100, 0.200]"
  )
  assert formatting.difference_cell(Estimate(-0.1, -0.2, -0.05)) == Cell(
    "−0.100*", "[−0.200, −0.050]", marked=True
  )
  assert formatting.difference_cell(Estimate(np.nan, 0, 1)) == Cell("–")
  assert formatting.change_cell(0.4, 0.5) == Cell("0.400", "−0.100")
  assert formatting.change_cell(0.4, np.nan) == Cell("0.400")


def test_wholes_and_lists():
  assert formatting.whole(1234567) == "1,234,567"
  assert formatting.whole(None) == "–"
  assert formatting.listed(["a"]) == "a"
  assert formatting.listed(["a", "b", "c"]) == "a, b and c"
