"""Sounds of the demo set, each drawn from a random generator.

A sound is a function of (rng, longest_s): it draws its pitch, timbre, rate and
envelope from `rng` and returns <float32>[samples] at `synthesis.SAMPLE_RATE_HZ`, at any
level, at most `longest_s` long. `SOUNDS` names them as FSD50K does.
"""

from collections.abc import Callable

import numpy as np

from audiotag_jax.data.demo import everyday_sounds, musical_sounds

Sound = Callable[[np.random.Generator, float], np.ndarray]

# From the commonest to the rarest.
SOUNDS: dict[str, Sound] = {
  "Acoustic_guitar": musical_sounds.acoustic_guitar,
  "Rain": everyday_sounds.rain,
  "Chirp_and_tweet": everyday_sounds.chirp,
  "Snare_drum": musical_sounds.snare_drum,
  "Idling": everyday_sounds.idling,
  "Bass_drum": musical_sounds.bass_drum,
  "Applause": everyday_sounds.applause,
  "Siren": everyday_sounds.siren,
  "Hi-hat": musical_sounds.hi_hat,
  "Knock": everyday_sounds.knock,
  "Wind": everyday_sounds.wind,
  "Trumpet": musical_sounds.trumpet,
  "Accelerating_and_revving_and_vroom": everyday_sounds.revving,
  "Cricket": everyday_sounds.cricket,
  "Thunder": everyday_sounds.thunder,
  "Church_bell": everyday_sounds.church_bell,
  "Ringtone": everyday_sounds.ringtone,
  "Shatter": everyday_sounds.shatter,
  "Marimba_and_xylophone": musical_sounds.marimba,
  "Tick-tock": everyday_sounds.tick_tock,
}
