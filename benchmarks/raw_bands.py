"""The bands as they are, as a backbone: with a linear decoder, what frozen features are to be better than."""

from torch import nn

from covermap.core.types import Batch, Features, InputSpec
from covermap.nn.model import Backbone, stack_inputs


class RawBands(Backbone):
    """One map of stride 1: normalised bands of all sensors and dates."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.channels, self.strides = (spec.num_channels,), (1,)
        self.same = nn.Identity()

    def forward(self, batch: Batch) -> Features:
        return Features((stack_inputs(batch),), self.strides)
