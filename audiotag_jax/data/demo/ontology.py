"""FSD50K's classes of the demo set's sounds: their identifiers and parents."""

from collections.abc import Iterable

# FSD50K's classes that occur here, each with AudioSet's identifier and its parents, the
# nearest first. Spelling and parents are those of FSD50K's own ground truth.
ONTOLOGY: dict[str, tuple[str, tuple[str, ...]]] = {
  "Accelerating_and_revving_and_vroom": ("/m/07q2z82", ("Engine",)),
  "Acoustic_guitar": ("/m/042v_gx", ("Guitar",)),
  "Alarm": ("/m/07pp_mv", ()),
  "Animal": ("/m/0jbk", ()),
  "Applause": ("/m/028ght", ("Human_group_actions",)),
  "Bass_drum": ("/m/0bm02", ("Drum",)),
  "Bell": ("/m/0395lw", ()),
  "Bird": ("/m/015p6", ("Wild_animals",)),
  "Bird_vocalization_and_bird_call_and_bird_song": ("/m/020bb7", ("Bird",)),
  "Brass_instrument": ("/m/01kcd", ("Musical_instrument",)),
  "Chirp_and_tweet": (
    "/m/07pggtn",
    ("Bird_vocalization_and_bird_call_and_bird_song",),
  ),
  "Church_bell": ("/m/03w41f", ("Bell",)),
  "Clock": ("/m/01x3z", ("Mechanisms",)),
  "Cricket": ("/m/09xqv", ("Insect",)),
  "Cymbal": ("/m/01qbl", ("Percussion",)),
  "Domestic_sounds_and_home_sounds": ("/t/dd00071", ()),
  "Door": ("/m/02dgv", ("Domestic_sounds_and_home_sounds",)),
  "Drum": ("/m/026t6", ("Percussion",)),
  "Engine": ("/m/02mk9", ()),
  "Glass": ("/m/039jq", ()),
  "Guitar": ("/m/0342h", ("Plucked_string_instrument",)),
  "Hi-hat": ("/m/03qtq", ("Cymbal",)),
  "Human_group_actions": ("/t/dd00012", ()),
  "Idling": ("/m/07pb8fc", ("Engine",)),
  "Insect": ("/m/03vt0", ("Wild_animals",)),
  "Knock": ("/m/07r4wb8", ("Door",)),
  "Mallet_percussion": ("/m/0j45pbj", ("Percussion",)),
  "Marimba_and_xylophone": ("/m/0dwsp", ("Mallet_percussion",)),
  "Mechanisms": ("/t/dd00077", ()),
  "Music": ("/m/04rlf", ()),
  "Musical_instrument": ("/m/04szw", ("Music",)),
  "Percussion": ("/m/0l14md", ("Musical_instrument",)),
  "Plucked_string_instrument": ("/m/0fx80y", ("Musical_instrument",)),
  "Rain": ("/m/06mb1", ("Water",)),
  "Ringtone": ("/m/01hnzm", ("Telephone",)),
  "Shatter": ("/m/07rn7sz", ("Glass",)),
  "Siren": ("/m/03kmc9", ("Alarm",)),
  "Snare_drum": ("/m/06rvn", ("Drum",)),
  "Telephone": ("/m/07cx4", ("Alarm",)),
  "Thunder": ("/m/0ngt1", ("Thunderstorm",)),
  "Thunderstorm": ("/m/0jb2l", ()),
  "Tick-tock": ("/m/07qjznl", ("Clock",)),
  "Trumpet": ("/m/07gql", ("Brass_instrument",)),
  "Water": ("/m/0838f", ()),
  "Wild_animals": ("/m/01280g", ("Animal",)),
  "Wind": ("/m/03m9d0z", ()),
}


def smear(labels: Iterable[str]) -> list[str]:
  """Returns the labels, each once, and then all their parents, as in FSD50K."""
  smeared = list(dict.fromkeys(labels))
  for label in smeared:  # The list grows meanwhile, so parents add their own parents.
    smeared += [p for p in ONTOLOGY[label][1] if p not in smeared]
  return smeared
