"""PANNs' architectures as Flax modules."""

from typing import Any

from audiotag_jax.errors import UserError
from audiotag_jax.frontend.mel import LogMelParams
from audiotag_jax.models import panns_layers
from audiotag_jax.models.panns_cnn import Cnn
from audiotag_jax.models.panns_mobilenet import MobileNet
from audiotag_jax.models.panns_resnet import Res1dNet, ResNet
from audiotag_jax.models.panns_waveform import DaiNet, LeeNet
from audiotag_jax.models.panns_wavegram import WavegramCnn
from audiotag_jax.panns import architectures

# Modules by family.
MODULES = {
  "cnn": Cnn,
  "resnet": ResNet,
  "res1dnet": Res1dNet,
  "mobilenet": MobileNet,
  "leenet": LeeNet,
  "dainet": DaiNet,
  "wavegram": WavegramCnn,
}
FRONT_END = LogMelParams(**architectures.FRONT_END)


def create(name: str, *, num_classes: int, **fields: Any) -> panns_layers.PannsModel:
  """Returns the model of an architecture.

  Args:
    name: a key of `panns.architectures.ARCHITECTURES`.
    num_classes: number of classes.
    **fields: fields of the module that differ from the architecture's.

  Raises:
    UserError: the architecture does not exist.
  """
  rows = architectures.ARCHITECTURES
  if name not in rows:
    raise UserError(f"{name!r} is not an architecture: choose from {', '.join(rows)}")
  row = rows[name]
  fields = {"front_end": LogMelParams(**row.front_end)} | row.fields | fields
  return MODULES[row.family](num_classes=num_classes, **fields)
