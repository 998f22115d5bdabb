"""Networks as named stages; starting weights; the frozen prefix."""

from common.models.backbones import Backbone, build_backbone, check_network, starting_state
from common.models.staged import Classifier, Features, StagedNetwork, as_map
from common.models.trunk import FeatureBatches, Trunk
from common.models.weights import Weights, input_size
