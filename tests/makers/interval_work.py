"""What the experiment on intervals runs in other processes: work of a known size, and neighbours that disturb it."""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

MECHANISM, CHANNELS, SIDE = "spatial/ccnet", 64, 33
UNITS, MORE_UNITS = 10, 11  # 10 % more of the same work
_BLOCK_BYTES = 64 * 2**20


class Repeats(nn.Module):
    """One criss-cross block applied `units` times in a row: equal units of work, each on what the one before returned."""

    def __init__(self, channels: int, units: int = UNITS) -> None:
        from attnprof import mechanisms

        super().__init__()
        self.units = units
        self.block = mechanisms.load(MECHANISM).build(channels)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.units):
            x = self.block(x)
        return x


def neighbour(seed: int, steady: bool = False) -> None:
    """Bursts of 20 to 300 ms, half of them arithmetic and half copies of a block that no cache holds, pauses in between.

    `steady`: without pauses. Ends with the process that started it.
    """
    draw, parent = random.Random(seed), os.getppid()
    source, target = bytearray(_BLOCK_BYTES), bytearray(_BLOCK_BYTES)
    while os.getppid() == parent:
        until, copies = time.monotonic() + draw.uniform(0.02, 0.3), draw.random() < 0.5
        while time.monotonic() < until:
            if copies:
                target[:] = source
            else:
                sum(range(20_000))
        if not steady:
            time.sleep(draw.uniform(0.02, 0.3))


def placement(arm: str, seed: int, rounds: int) -> list[tuple[float, float]]:
    """Pairs of latencies of two equal members in this process, through the product's window.

    arm: 'still' leaves their tensors where they are; 'moved' moves them before every sample, as the product does; 'shared' has
    both labels name one and the same member, which no placement can tell apart.
    """
    from attnprof.profiling.measuring import measure
    from attnprof.profiling.measuring.prepare import conditions
    from attnprof.profiling.measuring.window import Member, flush_of, move, time_pass
    from attnprof.records import Case, Shape

    plan = measure.Plan("placement", seed=seed)
    shape = Shape(1, CHANNELS, SIDE, SIDE)
    cases = [Case(MECHANISM, label, {}, shape, device="cpu", settings={"sdpa": "auto"}) for label in "ab"]
    members: list[Member] = []
    for index, case in enumerate(cases):
        member = measure.prepare_member(case, index, plan)
        assert isinstance(member, Member), member
        members.append(member)
    if arm == "shared":
        members[1] = Member(cases[1], 1, members[0].prepared, None, members[0].estimate_s)
    flush, shuffler, pairs = flush_of(cases[0]).run, random.Random(seed), []
    gc.collect()
    gc.freeze()
    with conditions(cases[0]):
        for number in range(-10, rounds):
            found = {}
            for member in shuffler.sample(members, 2):
                if arm == "moved":
                    move(member)
                gc.collect()
                flush()
                found[member.index] = time_pass(member).latency_s
            if number >= 0:
                pairs.append((found[0], found[1]))
    return pairs


def main(arguments: list[str]) -> Any:
    """`neighbour SEED [steady]`, or `placement ARM SEED ROUNDS`, which prints its pairs as JSON."""
    if arguments[0] == "neighbour":
        return neighbour(int(arguments[1]), "steady" in arguments)
    torch.set_num_threads(1)
    return print(json.dumps(placement(arguments[1], int(arguments[2]), int(arguments[3]))))


if __name__ == "__main__":
    main(sys.argv[1:])
