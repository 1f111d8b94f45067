"""From a trained model to answers about any recording."""

from audiotag_jax.inference.tagger import Tagger

__all__ = ["Tagger"]
