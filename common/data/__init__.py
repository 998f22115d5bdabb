"""Pictures as uint8 tensors, the split, and batches on the device."""

from common.data.augment.steps import build_augmentation
from common.data.loader import Batches, InputSpec, steps_per_epoch
from common.data.pictures import ImageSet
from common.data.splits import Splits, load_splits
