"""Functions that tests of `benchmarks.turns` time, in processes that import them."""

import time


def create_sleeper(seconds):
  return lambda: time.sleep(seconds), lambda: seconds


def create_failing_later():
  calls = iter(range(3))
  return lambda: next(calls), lambda: None


def create_failing():
  raise ImportError("no such peer")
