"""Where and how a run computes: device, precision, seeds, several processes."""

from common.runtime.device import Runtime, counter_seed, free_memory, start_runtime
from common.runtime.distributed import ALONE, Processes
from common.runtime.provenance import command, provenance
