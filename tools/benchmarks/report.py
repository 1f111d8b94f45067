"""Helpers of benchmark.py's parts: a stopwatch, and figures that are printed."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

# What this process has printed, as JSON takes it.
figures: list[dict[str, Any]] = []


def timed(function: Callable[..., Result], *args: Any) -> tuple[float, Result]:
  """Returns a call's seconds and what it returned."""
  start_s = time.perf_counter()
  result = function(*args)
  return time.perf_counter() - start_s, result


def report(name: str, ours: float, peer: float, peer_name: str) -> None:
  """Prints a row: ours, a peer's in the same run, and their ratio."""
  print(f"{name:<34}{ours:10.1f}{peer:10.1f}{ours / peer:8.2f} ×   {peer_name}")
  figures.append({"name": name, "ours": ours, "peer": peer, "peer_name": peer_name})


def report_ours(name: str, value: float, decimals: int = 1) -> None:
  """Prints a figure without a peer."""
  print(f"{name:<34}{value:10.{decimals}f}")
  figures.append({"name": name, "ours": value})


def take_figures() -> list[dict[str, Any]]:
  """Returns what was printed since the last call."""
  taken = list(figures)
  figures.clear()
  return taken
