"""Answers of a trained model about any recording: tags, events, exports."""

from audiotag_jax.inference.tagger import Tagger

__all__ = ["Tagger"]
