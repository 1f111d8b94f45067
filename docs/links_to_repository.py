"""Lets links that lead out of docs/ work on the site too: a hook of mkdocs."""

import re


def on_page_markdown(markdown: str, *, config, **_) -> str:
  """Points `](../README.md)` and the like to the repository's page on GitHub."""
  return re.sub(r"\]\(\.\./", f"]({config.repo_url.rstrip('/')}/blob/main/", markdown)
