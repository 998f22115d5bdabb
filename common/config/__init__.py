"""Options in, a typed config or one line of error out."""

from common.config.parser import load_config
from common.config.registry import named_step
from common.config.schema import (
    Benchmark,
    DataConfig,
    LevelConfig,
    NetworkConfig,
    Step,
    TestConfig,
    TrainConfig,
)
