"""Helpers of benchmark.py's parts: a stopwatch, and a row of the table."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


def timed(function: Callable[..., Result], *args: Any) -> tuple[float, Result]:
  """Returns a call's seconds and what it returned."""
  start_s = time.perf_counter()
  result = function(*args)
  return time.perf_counter() - start_s, result


def report(name: str, ours: float, peer: float, peer_name: str) -> None:
  """Prints a row: ours, a peer's in the same run, and their ratio."""
  print(f"{name:<34}{ours:10.1f}{peer:10.1f}{ours / peer:8.2f} ×   {peer_name}")
