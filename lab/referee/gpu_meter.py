"""What the driver says about the GPU of one run: its name, and the memory in use above what was in use before.

The device is the run's alone as far as this user's labs go; what other programs allocate meanwhile is counted, too. A driver
that does not answer costs the numbers, never the run.
"""

from __future__ import annotations

from ..devices import GpuDriver, GpuDriverError


class GpuMeter:
    """Make it before the candidate starts; `sample` it while the candidate lives."""

    def __init__(self, device: str, driver: GpuDriver) -> None:
        self._driver = driver
        self._uuid = device.partition(":")[2]
        self._before_mb = 0.0
        self.device_name: str | None = None
        self.driver_version: str | None = None
        self.peak_mb: float | None = None
        try:
            self.device_name = next((gpu.name for gpu in driver.gpus() if gpu.uuid == self._uuid), None)
            self.driver_version = driver.version()
            self._before_mb = driver.used_memory_mb(self._uuid)
            self.peak_mb = 0.0
        except GpuDriverError:
            return

    def sample(self) -> None:
        """Take the memory in use now into the peak."""
        if self.peak_mb is None:
            return
        try:
            self.peak_mb = max(self.peak_mb, self._driver.used_memory_mb(self._uuid) - self._before_mb)
        except GpuDriverError:
            return

    def facts(self) -> dict:
        """Return what is known under the names that `RunResult` has for it."""
        return {
            "device_name": self.device_name,
            "driver_version": self.driver_version,
            "peak_gpu_memory_mb": None if self.peak_mb is None else round(self.peak_mb, 1),
        }
