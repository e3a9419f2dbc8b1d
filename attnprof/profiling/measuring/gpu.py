"""What NVML and locks tell about a GPU: whether there is one, who else uses it, what slowed it down, what it consumed.

Importing this module imports no torch. Without a driver every question has an answer: nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# bits of NVML's clock event reasons (NVML API reference, NvmlClocksEventReasons)
_BAD_CLOCK_REASONS = {
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal",
    0x80: "power brake",
}
_POWER_CAP = 0x4


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """The NVML module, initialised; None without a driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - NVMLError needs the module; any failure means no GPU that could be asked
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def count() -> int:
    """GPUs that the driver knows."""
    with _nvml() as nvml:
        return 0 if nvml is None else int(nvml.nvmlDeviceGetCount())


def driver() -> str | None:
    """The version of the driver."""
    with _nvml() as nvml:
        return None if nvml is None else str(nvml.nvmlSystemGetDriverVersion())


def lock(name: str, wait: bool) -> int | None:
    """An advisory lock that lasts as long as this process; None when another process has it."""
    path = Path(tempfile.gettempdir()) / f"attnprof-{os.getuid()}-{name}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@dataclass
class Watch:
    """What a GPU was seen doing around a block. `facts` for the environment, `warnings` for the timings."""

    device: str
    uuid: str = ""
    snapshots: list[dict[str, Any]] = field(default_factory=list)

    def look(self) -> None:
        """Take a snapshot: clocks, temperature, power, reasons for slow clocks, other processes."""
        with _nvml() as nvml:
            if nvml is None or not self.uuid:
                return
            try:
                handle = nvml.nvmlDeviceGetHandleByUUID(self.uuid)
            except nvml.NVMLError:  # a slice of a GPU, or one that NVML may not see
                return
            readings: dict[str, Callable[[], Any]] = {
                "sm_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
                "max_sm_clock_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
                "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
                "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
                "slow_clock_reasons": lambda: _clock_reasons(nvml, handle),
                # less this one: process ids of another namespace cannot be told from one's own
                "other_processes": lambda: max(len(nvml.nvmlDeviceGetComputeRunningProcesses(handle)) - 1, 0),
            }
            snapshot: dict[str, Any] = {}
            for name, read in readings.items():
                with contextlib.suppress(nvml.NVMLError):  # not every GPU answers every question
                    snapshot[name] = read()
            self.snapshots.append(snapshot)

    def facts(self) -> dict[str, Any]:
        """{'gpu_state': [before, after]}, or nothing on the CPU."""
        return {"gpu_state": [self.snapshots[0], self.snapshots[-1]]} if self.snapshots else {}

    def _reasons(self) -> int:
        reasons = 0
        for snapshot in self.snapshots:
            reasons |= snapshot.get("slow_clock_reasons", 0)
        return reasons

    def slowed(self) -> bool:
        """Whether heat or power held the clock down in any snapshot so far: what was sampled meanwhile is to be rejected."""
        return bool(self._reasons() & sum(_BAD_CLOCK_REASONS))

    def warnings(self) -> tuple[str, ...]:
        """Look again, and say what may have disturbed the block so far."""
        self.look()
        found: list[str] = []
        reasons = self._reasons()
        found += [f"the GPU slowed down: {name}" for bit, name in _BAD_CLOCK_REASONS.items() if reasons & bit]
        if reasons & _POWER_CAP:
            found.append("the GPU's clock was held by its power cap")
        if any(snapshot.get("other_processes") for snapshot in self.snapshots):
            found.append("another process was using the GPU")
        return tuple(found)


def _clock_reasons(nvml: Any, handle: Any) -> int:
    """Why the clock is not higher, as bits: by the name of NVML 12 and later, or the one before."""
    read = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None) or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
    return int(read(handle))


@contextlib.contextmanager
def watch(device: str) -> Iterator[Watch]:
    """Have a GPU for oneself (lock by UUID: other attnprof runs wait) and look at it before; the CPU needs neither."""
    watched = Watch(device)
    if device.startswith("cuda"):
        import torch

        watched.uuid = uuid(torch.cuda.get_device_properties(device))
        held = lock(watched.uuid or device, wait=True)
        watched.look()
        try:
            yield watched
        finally:
            if held is not None:
                os.close(held)
    else:
        yield watched


def uuid(properties: Any) -> str:
    """NVML's name for a device of torch's; '' where torch does not tell."""
    uuid = getattr(properties, "uuid", None)
    return f"GPU-{uuid}" if uuid else ""


def energy_counter_j(device: str) -> float | None:
    """The GPU's energy counter in joules; None where it has none. Imports torch."""
    if not device.startswith("cuda"):
        return None
    import torch

    with _nvml() as nvml:
        if nvml is None:
            return None
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid(torch.cuda.get_device_properties(device)))
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
        except nvml.NVMLError:
            return None
