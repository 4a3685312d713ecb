"""Wait until a Ray cluster has all its nodes: wait_for_ray.py --address IP:PORT --nodes N.

Exit status 1 if they have not all joined in time; the last line says what was missing.
"""

import argparse
import sys
import time

import ray


def joined(address: str) -> tuple[int, int]:
    """Nodes alive and their GPUs; (0, 0) if the head does not answer yet."""
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError):
        return 0, 0
    try:
        alive = [node for node in ray.nodes() if node["Alive"]]
        return len(alive), int(sum(node["Resources"].get("GPU", 0) for node in alive))
    finally:
        ray.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--timeout-s", type=float, default=300)
    options = parser.parse_args()
    deadline = time.monotonic() + options.timeout_s
    nodes = gpus = 0
    while time.monotonic() < deadline:
        nodes, gpus = joined(options.address)
        if nodes >= options.nodes:
            print(f"Ray has {nodes} nodes and {gpus} GPUs", flush=True)
            return 0
        time.sleep(1)
    print(
        f"error: after {options.timeout_s:.0f} s Ray at {options.address} has {nodes} of "
        f"{options.nodes} nodes (firewall, another Ray version, or a node without this "
        "environment)",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
