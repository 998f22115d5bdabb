"""What each of the processes of test_distributed.py checks; torchrun starts it.

It prints one line a process, and ends with an assertion where something is not as it should be.
Its argument is an empty folder.
"""

import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

from common.runtime import distributed
from common.utils.errors import UserError


def main():
    """The exchanges, from each process's side."""
    here = distributed.join("cpu")
    rank, world = here.rank, here.world
    assert world == int(os.environ["WORLD_SIZE"]) and distributed.joined()

    for count in (0, 1, 2, 3, 10, 101):
        table = torch.arange(2.0 * count).view(count, 2)
        part = here.shard(count)
        assert torch.equal(here.all_gather(table[part.start : part.stop], count), table)

    value = torch.tensor(rank + 1)
    assert here.all_reduce(value) == world * (world + 1) // 2 and value == rank + 1
    told = {"history": [1, 2], "w": torch.ones(3)} if here.first else None
    assert torch.equal(here.broadcast_object(told)["w"], torch.ones(3))

    torch.manual_seed(rank)
    network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    torch.manual_seed(0)
    expected = nn.Conv2d(3, 4, 3)
    here.broadcast_(network.state_dict().values())
    assert torch.equal(network.weight, expected.weight)
    assert network.weight.is_contiguous(memory_format=torch.channels_last)

    here.check_equal({"pictures": "abc"})
    try:
        here.check_equal({"options": {"lr": 0.1}, "pictures": "abc" if rank < world - 1 else "abd"})
        raise AssertionError("they differ")
    except UserError as error:
        assert f"processes 0 and {world - 1} differ in their pictures" in str(error)

    made = Path(sys.argv[1]) / "made"
    with here.in_turn():
        assert made.exists() != here.first, "the others come when the first one is done"
        if here.first:
            time.sleep(0.3)
            made.touch()
    print(f"process {rank} of {world}: all as it should be", flush=True)
    distributed.leave()


if __name__ == "__main__":
    main()
