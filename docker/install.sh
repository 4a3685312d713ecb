#!/usr/bin/env bash
# Fills an image: install.sh ENGINE (vllm, sglang, megatron), with the checkout at /opt/online-refiner. Used by the
# Dockerfile and by online-refiner.def.
set -euo pipefail

engine="$1"
python=3.11
[[ "$engine" != megatron ]] || python=3.12
export DEBIAN_FRONTEND=noninteractive
apt-get update
# libnuma is what vLLM links to; the compiler is for flash-attn, Transformer Engine and Triton.
apt-get install --yes --no-install-recommends build-essential ca-certificates curl git libnuma1 ninja-build
rm -rf /var/lib/apt/lists/*
curl -LsSf https://astral.sh/uv/install.sh | env UV_INSTALL_DIR=/usr/local/bin sh
uv venv --python "$python" /opt/venv
export VIRTUAL_ENV=/opt/venv PATH="/opt/venv/bin:$PATH"
cd /opt/online-refiner
uv pip install --no-deps --require-hashes -r "requirements/gpu-$engine.lock"
# Compiled against the torch above; takes an hour where no wheel fits.
uv pip install setuptools wheel packaging
uv pip install --no-build-isolation flash-attn==2.8.3
if [[ "$engine" == megatron ]]; then
    # The release of the lock's transformer-engine. cuDNN's and NCCL's headers come with the lock.
    packages="$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    CPATH="$packages/nvidia/cudnn/include:$packages/nvidia/nccl/include" \
        uv pip install --no-build-isolation --no-deps transformer-engine-torch==2.17.0
fi
uv pip install --no-deps -e .
uv cache clean
