from audiotag_jax.data.demo.ontology import smear


def test_labels_are_smeared_upwards_as_fsd50k_does():
  # Rows of FSD50K's dev.csv: "Bass_drum,Snare_drum,…" and "Bark,Cricket,…,Animal,…".
  drums = ["Bass_drum", "Snare_drum", "Drum", "Percussion", "Musical_instrument"]
  assert smear(["Bass_drum", "Snare_drum", "Bass_drum"]) == [
    *drums,
    "Music",
  ]
  assert set(smear(["Cricket"])) == {
    "Cricket",
    "Insect",
    "Wild_animals",
    "Animal",
  }
