"""AudioSet's classes."""

from audiotag_jax.panns import class_names


def test_there_are_527_in_panns_order():
  classes = class_names.audioset_classes()
  assert len(classes) == len(set(classes)) == 527
  assert classes[0] == ("Speech", "/m/09x0r")
  assert classes[137] == ("Music", "/m/04rlf")
  assert classes[526] == ("Field recording", "/m/07hvw1")
  assert all(mid.startswith(("/m/", "/g/", "/t/")) for _, mid in classes)
  names = class_names.audioset_class_names()
  assert names[1] == "Male speech, man speaking"
  assert len(set(names)) == 527
