"""What `VERL_USE_EXTERNAL_MODULES=recipe.cpu.plugin` loads, in every process that imports verl.

Importing it checks the versions, registers the CPU platform and arranges the shims. It is cheap:
vLLM is not imported, only waited for. Idempotent, since Python imports a module once.
"""

from __future__ import annotations

from verl.plugin.platform import PlatformRegistry

from recipe.cpu import shims, versions
from recipe.cpu.platform import PLATFORM_NAME, CpuPlatform

versions.check()
PlatformRegistry.register(platform=PLATFORM_NAME)(CpuPlatform)
shims.install()
