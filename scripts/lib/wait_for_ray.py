"""Wait until a Ray cluster has all its nodes: wait_for_ray.py --address HOST:PORT --nodes N.

Exit status 1 if they have not all joined in time; the last line says what was missing.
"""

import argparse
import json
import subprocess
import sys
import time

ASK = """
import json, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
alive = [node for node in ray.nodes() if node["Alive"]]
print(json.dumps([len(alive), int(sum(node["Resources"].get("GPU", 0) for node in alive))]))
"""


def joined(address: str, timeout_s: float) -> tuple[int, int]:
    """Nodes alive and their GPUs; (0, 0) if the head does not answer in time.

    In a process of its own: Ray's client cannot be told when to give up.
    """
    command = [sys.executable, "-c", ASK, address]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return 0, 0
    if asked.returncode != 0:
        return 0, 0
    nodes, gpus = json.loads(asked.stdout.splitlines()[-1])
    return nodes, gpus


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--timeout-s", type=float, default=300)
    options = parser.parse_args()
    deadline = time.monotonic() + options.timeout_s
    nodes = gpus = 0
    while (left_s := deadline - time.monotonic()) > 0:
        answer = joined(options.address, left_s)
        # A head that was too slow this once still has the nodes that it had.
        nodes, gpus = max(nodes, answer[0]), max(gpus, answer[1])
        if answer[0] >= options.nodes:
            print(f"Ray has {nodes} nodes and {gpus} GPUs", flush=True)
            return 0
        time.sleep(max(0.0, min(1.0, deadline - time.monotonic())))
    print(
        f"error: after {options.timeout_s:.0f} s Ray at {options.address} has {nodes} of "
        f"{options.nodes} nodes (firewall, another Ray version, or a node without this "
        "environment)",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
