"""Numbers as a report shows them; a dash stands for a missing number."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from audiotag_jax.reporting.page import Cell


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A value with its 95 % interval."""

  value: float
  low: float
  high: float

  @property
  def excludes_zero(self) -> bool:
    return self.low > 0 or self.high < 0


def number(value: float | None) -> str:
  """Formats a number with three decimals."""
  if value is None or np.isnan(value):
    return "–"
  return "∞" if value == np.inf else f"{value:.3f}".replace("-", "−")


def signed(value: float) -> str:
  """Formats a number with three decimals and a sign."""
  return f"+{number(value)}" if value >= 0 else number(value)


def whole(value: float | None) -> str:
  """Formats a whole number, with commas between thousands."""
  return "–" if value is None else f"{int(value):,}"


def interval(estimate: Estimate) -> str:
  return f"[{number(estimate.low)}, {number(estimate.high)}]"


def estimate_cell(estimate: Estimate) -> Cell:
  """A value, with its interval below it."""
  value = number(estimate.value)
  return Cell(value) if value == "–" else Cell(value, interval(estimate))


def difference_cell(estimate: Estimate) -> Cell:
  """A difference, marked if its interval excludes 0."""
  if np.isnan(estimate.value):
    return Cell("–")
  star = "*" if estimate.excludes_zero else ""
  text = signed(estimate.value) + star
  return Cell(text, interval(estimate), marked=estimate.excludes_zero)


def change_cell(value: float, reference: float) -> Cell:
  """A value, with its change from another value below it."""
  change = signed(value - reference)
  return Cell(number(value)) if change == "–" else Cell(number(value), change)


def listed(names: Sequence[str]) -> str:
  """Joins names for a sentence."""
  if len(names) == 1:
    return names[0]
  return f"{', '.join(names[:-1])} and {names[-1]}"
