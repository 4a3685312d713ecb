"""`scripts/train.sbatch` in a SLURM of stand-ins: addresses, GPUs, containers, refusals."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm import Job

_numbers = itertools.count(os.getpid() * 100)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path, next(_numbers))


@pytest.fixture
def two_nodes(job: Job) -> Iterator[Job]:
    job.nodes("nodea", "nodeb")
    job.facts(nodes=2)
    yield job


def address_of(job: Job) -> str:
    """The head's address as the job says it, once all that is started has been given it."""
    status, output = job.run_to_the_end()
    assert status == 0, output
    (line,) = [line for line in output.splitlines() if "Ray at " in line]
    said = line.split("Ray at ")[1].split(";")[0]
    address = said.rsplit(":", 1)[0]
    head, *others = sorted(job.read("ray.log").splitlines())  # by node
    assert f" --node-ip-address={address.strip('[]')} " in f"{head} "
    assert all(f" --address={said} " in f"{other} " for other in others)
    for node in job.read("nodes").split():
        assert f"RAY_ADDRESS={said}" in job.read(f"env-{node}").splitlines()
    return address


@pytest.mark.parametrize(
    ("of_the_name", "of_all_interfaces", "expected"),
    [
        ("127.0.1.1 10.0.0.7", "10.0.0.7", "10.0.0.7"),
        ("127.0.1.1", "169.254.3.3 192.168.1.5 172.17.0.1", "192.168.1.5"),
        ("", "192.168.1.5", "192.168.1.5"),
        ("::1", "fd00::7", "[fd00::7]"),
        ("fe80::1 2001:db8::5", "", "[2001:db8::5]"),
        ("fd00::7 10.0.0.7", "", "10.0.0.7"),
    ],
)
def test_ray_listens_where_other_nodes_can_reach_it(
    two_nodes: Job, of_the_name: str, of_all_interfaces: str, expected: str
) -> None:
    two_nodes.write("hostname--ip-address", f"{of_the_name}\n")
    two_nodes.write("hostname--all-ip-addresses", f"{of_all_interfaces} \n")
    assert address_of(two_nodes) == expected


def test_an_address_that_nobody_can_reach_is_refused(job: Job) -> None:
    job.write("hostname--ip-address", "127.0.1.1\n")
    status, output = job.run_to_the_end()
    assert status == 2
    assert "no address of nodea that other nodes could reach (found: 127.0.1.1" in output
    assert "ONLINE_REFINER_ADDRESS" in output
    assert job.read("ray.log") == ""


def test_the_interface_set_is_rays_nccls_and_gloos(two_nodes: Job) -> None:
    two_nodes.variables["ONLINE_REFINER_INTERFACE"] = "ib0"
    two_nodes.write(
        "interface-ib0",
        "3: ib0    inet 10.9.0.4/16 brd 10.9.255.255 scope global ib0\n"
        "3: ib0    inet6 fe80::4/64 scope link\n",
    )
    assert address_of(two_nodes) == "10.9.0.4"
    for node in ("nodea", "nodeb"):
        seen = two_nodes.read(f"env-{node}").splitlines()
        assert "NCCL_SOCKET_IFNAME==ib0" in seen
        assert "GLOO_SOCKET_IFNAME=ib0" in seen


def test_an_interface_without_an_address_is_refused_with_those_there_are(job: Job) -> None:
    job.variables["ONLINE_REFINER_INTERFACE"] = "eth9"
    status, output = job.run_to_the_end()
    assert status == 2
    assert "eth9 has no address on nodea" in output
    assert "take one of: lo eth0 ib0" in output


def test_the_address_set_stands_above_all(job: Job) -> None:
    job.variables["ONLINE_REFINER_ADDRESS"] = "10.1.1.1"
    assert address_of(job) == "10.1.1.1"


@pytest.mark.parametrize(("given", "wanted"), [(1, 2), (2, 1)])
def test_other_nodes_than_the_configuration_is_made_for_are_refused(
    job: Job, given: int, wanted: int
) -> None:
    job.nodes(*[f"node{number}" for number in range(given)])
    job.facts(nodes=wanted)
    status, output = job.run_to_the_end()
    assert status == 2
    assert f"the job has {given} nodes, and the configuration is made for {wanted}" in output
    assert f"sbatch --nodes={wanted}, or trainer.nnodes={given}" in output
    assert job.read("ray.log") == ""


@pytest.mark.parametrize(
    ("variables", "gpus"),
    [
        ({"SLURM_GPUS_ON_NODE": "4"}, 4),
        ({"SLURM_GPUS_PER_NODE": "a100:4"}, 4),
        ({"SLURM_GPUS_PER_NODE": "a100:2,h100:3"}, 5),
        ({"SLURM_JOB_GPUS": "0,1,2,3,6"}, 5),
    ],
)
def test_typed_gpus_are_counted(job: Job, variables: dict[str, str], gpus: int) -> None:
    job.variables |= variables
    job.facts(gpus=4)
    status, output = job.run_to_the_end()
    assert status == 0, output
    assert f"--num-gpus={gpus}" in job.read("ray.log")


def test_a_job_without_the_gpus_it_needs_is_refused(job: Job) -> None:
    job.facts(gpus=4)
    status, output = job.run_to_the_end()
    assert status == 2
    assert "the job has 0 GPUs a node, and the configuration takes 4" in output
    assert "--gres=gpu:TYPE:4" in output


def test_what_preflight_refuses_never_starts_ray(job: Job) -> None:
    job.write("preflight.sh", "echo 'The configuration cannot run:' >&2; exit 2")
    status, output = job.run_to_the_end()
    assert status == 2
    assert "The configuration cannot run" in output
    assert job.read("ray.log") == ""
    assert job.read("requeued") == ""


def test_rays_logs_are_saved_and_its_folder_is_removed(two_nodes: Job) -> None:
    status, output = two_nodes.run_to_the_end()
    assert status == 0, output
    logs = two_nodes.run / "launch" / f"{two_nodes.number}.0"
    assert list(logs.glob("node?/raylet-node?.out"))
    assert not Path(f"/tmp/ray-{two_nodes.number}").exists()


def test_the_nodes_have_the_jobs_environment_also_where_sbatch_exported_nothing(job: Job) -> None:
    job.variables |= {"SLURM_EXPORT_ENV": "NONE", "ANY_SETTING": "seen"}
    status, output = job.run_to_the_end()
    assert status == 0, output
    assert "ANY_SETTING=seen" in job.read("env-nodea")
    assert "RAY_AUTH_TOKEN=" in job.read("env-nodea")


def test_a_proxy_is_not_asked_for_the_nodes(two_nodes: Job) -> None:
    two_nodes.variables["https_proxy"] = "http://proxy:3128"
    two_nodes.variables["no_proxy"] = ".site"
    status, output = two_nodes.run_to_the_end()
    assert status == 0, output
    assert "no_proxy=.site,localhost,127.0.0.1,10.0.0.7,nodea,nodeb" in two_nodes.read("env-nodeb")


@pytest.mark.parametrize("runtime", ["apptainer", "enroot"])
def test_a_container_has_the_folders_that_a_run_needs(job: Job, runtime: str) -> None:
    folders = {name: job.folder / name for name in ("data", "runs", "models", "more")}
    for folder in folders.values():
        folder.mkdir()
    job.run.mkdir()
    job.variables |= {
        "ONLINE_REFINER_CONTAINER": str(job.folder / "image.sif"),
        "ONLINE_REFINER_CONTAINER_RUNTIME": runtime,
        "ONLINE_REFINER_DATA": str(folders["data"]),
        "ONLINE_REFINER_RUNS": str(folders["runs"]),
        "HF_HOME": str(folders["models"]),
        "ONLINE_REFINER_BINDS": f"{folders['more']}:/place,/is/not/there",
    }
    status, output = job.run_to_the_end()
    assert status == 0, output
    option = {"apptainer": "--bind", "enroot": "--mount"}[runtime]
    end = {"apptainer": " ", "enroot": ":none:x-create=auto,rbind "}[runtime]
    for line in job.read("container.log").splitlines():
        for name in ("data", "runs", "models"):
            assert f"{option}={folders[name]}:{folders[name]}{end}" in line
        assert f"{option}={folders['more']}:/place{end}" in line
        assert "/is/not/there" not in line
    # Everything but the host's own address is asked inside, Ray of the node too.
    assert "ray_node.sh" in job.read("container.log")
    assert f"{option}={job.run}:{job.run}{end}" in job.read("container.log").splitlines()[-1]
    assert "RAY_AUTH_TOKEN=" in job.read("env-nodea")


def test_pyxis_gets_image_and_mounts_as_options_of_srun(job: Job) -> None:
    (job.folder / "data").mkdir()
    job.variables |= {
        "ONLINE_REFINER_CONTAINER": str(job.folder / "image.sqsh"),
        "ONLINE_REFINER_DATA": str(job.folder / "data"),
        "ONLINE_REFINER_RUNS": str(job.folder / "runs"),
    }
    status, output = job.run_to_the_end()
    assert status == 0, output
    steps = job.read("srun.log").splitlines()
    inside = [line for line in steps if "--container-image=" in line]
    outside = [line for line in steps if "--container-image=" not in line]
    assert outside
    assert all(" hostname " in line for line in outside)
    for line in inside:
        assert f"--container-image={job.folder}/image.sqsh" in line
        assert f"{job.folder}/data:{job.folder}/data" in line.split("--container-mounts=")[1]
    for program in ("job_facts.py", "preflight", "wait_for_ray.py", "ray_node.sh", "training.sh"):
        assert any(program in line for line in inside), program


def test_an_unknown_container_runtime_is_refused(job: Job) -> None:
    job.variables |= {
        "ONLINE_REFINER_CONTAINER": "image.sif",
        "ONLINE_REFINER_CONTAINER_RUNTIME": "podman",
    }
    status, output = job.run_to_the_end()
    assert status == 2
    assert "ONLINE_REFINER_CONTAINER_RUNTIME=podman is unknown" in output
    assert "apptainer, pyxis or enroot" in output


def test_a_sites_settings_are_read_from_its_file(job: Job) -> None:
    checkout = job.folder / "checkout"
    checkout.mkdir()
    for name in ("recipe", "scripts"):
        (checkout / name).symlink_to(Path(__file__).resolve().parents[3] / name)
    (checkout / "site.env").write_text("ONLINE_REFINER_ADDRESS=10.2.2.2\nSITES_OWN=seen\n")
    job.variables["ONLINE_REFINER_ROOT"] = str(checkout)
    assert address_of(job) == "10.2.2.2"
    assert "SITES_OWN=seen" in job.read("env-nodea")
