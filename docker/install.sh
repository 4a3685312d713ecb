#!/usr/bin/env bash
# Fills an image: install.sh ENGINE, with the checkout at /opt/online-refiner. Used by the Dockerfile and by
# online-refiner.def.
set -euo pipefail

engine="$1"
export DEBIAN_FRONTEND=noninteractive
apt-get update
# libnuma is what vLLM links to; the compiler is for flash-attn and Triton.
apt-get install --yes --no-install-recommends build-essential ca-certificates curl git libnuma1 ninja-build
rm -rf /var/lib/apt/lists/*
curl -LsSf https://astral.sh/uv/install.sh | env UV_INSTALL_DIR=/usr/local/bin sh
uv venv --python 3.11 /opt/venv
export VIRTUAL_ENV=/opt/venv PATH="/opt/venv/bin:$PATH"
cd /opt/online-refiner
uv pip install --no-deps --require-hashes -r "requirements/gpu-$engine.lock"
# Compiled against the torch above; takes an hour where no wheel fits.
uv pip install setuptools wheel packaging
uv pip install --no-build-isolation flash-attn==2.8.3
uv pip install --no-deps -e .
uv cache clean
