"""The architectures' rows and tables against the reference's state_dicts."""

import panns_reference
import pytest

from audiotag_jax.models import panns
from audiotag_jax.panns import architectures, tables


def test_a_row_has_a_family_that_the_modules_and_the_tables_know():
  families = {row.family for row in architectures.ARCHITECTURES.values()}
  assert families == panns.MODULES.keys() == tables.FAMILIES.keys()


def test_the_blocks_that_config_panns_changes():
  assert architectures.CNN_BLOCKS == {"Cnn6": 4, "Cnn10": 4, "Cnn14": 6}


def test_there_is_a_table_of_each_architecture():
  assert list(tables.TABLES) == list(panns_reference.DESCRIPTIONS)
  assert len(tables.TABLES) == 26


@pytest.mark.parametrize("name", tables.TABLES)
def test_keys_shapes_and_order_are_the_references(name):
  table = tables.TABLES[name](527)
  assert [(e.key, e.shape) for e in table] == [*panns_reference.shapes(name).items()]


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_entry_has_one_place(name):
  table = tables.TABLES[name](527)
  paths = [entry.path for entry in table if entry.path]
  assert len(paths) == len(set(paths))
  kinds = {
    "kernel": {"kernel"},
    "vector": {"scale", "bias", "mean", "var"},
    "counter": {None},
    "fixed": {None},
  }
  for entry in table:
    assert (entry.path[-1] if entry.path else None) in kinds[entry.kind]
    assert entry.path[:1] in {(), ("params",), ("batch_stats",)}


@pytest.mark.parametrize("name", tables.TABLES)
def test_the_number_of_classes_changes_the_classifier_alone(name):
  pairs = zip(tables.TABLES[name](527), tables.TABLES[name](200), strict=True)
  changed = {a.key.rpartition(".")[0] for a, b in pairs if a != b}
  attention = {f"att_block.{layer}" for layer in ("att", "cla", "bn_att")}
  assert changed == (attention if name.endswith("Att") else {"fc_audioset"})
