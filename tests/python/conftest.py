"""What several test files share: commands of the project, and programs that continuous integration installs."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "predictgbm"

# A busy machine is slow, not wrong; and a run repeats the last one's examples.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")


def may_install() -> bool:
    """Whether tests may install Debian packages: as root, in continuous integration or where asked to."""
    asked = os.environ.get("CI") == "true" or os.environ.get("PREDICTGBM_TEST_INSTALL") == "1"
    return asked and os.geteuid() == 0 and shutil.which("apt-get") is not None


@contextmanager
def alone() -> Iterator[None]:
    """Keep out other workers of the tests, which may install the same packages or make the same image."""
    with (Path(tempfile.gettempdir()) / f"predictgbm_tests_{os.geteuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def need(programs: dict[str, str]) -> None:
    """Demand programs (name -> Debian package), installing what is missing where that is allowed; else skip."""
    # Daemons are kept where a user's PATH may not look.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    missing = sorted({package for name, package in programs.items() if not shutil.which(name, path=path)})
    if not missing:
        return
    if not may_install():
        pytest.skip(
            f"needs {', '.join(missing)} (sudo apt-get install {' '.join(missing)}); "
            "as root, PREDICTGBM_TEST_INSTALL=1 lets the tests install them"
        )
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with alone():
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
            done = subprocess.run(["apt-get", *command], env=env, capture_output=True, text=True, timeout=900)
            assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for a condition, and fail with what was waited for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.2)
    pytest.fail(f"{what}: not within {seconds:.0f} s")


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start a SLURM of one node on this machine, on ports and in folders of its own.

    Yields the environment in which ``sbatch`` talks to it; nothing of the system's configuration is touched.
    """
    need({"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge"})
    if os.geteuid() != 0:
        pytest.skip("slurmd starts jobs as their owners, which needs root")
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (folder / "slurm.conf").write_text(
        f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
SchedulerParameters=sched_interval=5,batch_sched_delay=0
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=local Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
    )
    for name in ("state", "spool"):
        (folder / name).mkdir()
    env = os.environ | {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"]),
    }
    files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid"}
    files |= {"log-file": "munge.log", "seed-file": "munge.seed"}
    munge_files = [f"--{option}={folder / name}" for option, name in files.items()]
    daemons = [
        ["munged", "--foreground", "--force", *munge_files],
        ["slurmctld", "-D", "-i", "-f", env["SLURM_CONF"]],
        ["slurmd", "-D", "-N", host, "-f", env["SLURM_CONF"]],
    ]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in daemons:
            with (folder / f"{command[0]}.out").open("wb") as log:
                running.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))
            if command[0] == "munged":
                wait_until((folder / "munge.socket").exists, "munged opens its socket")

        def idle() -> bool:
            for process, command in zip(running, daemons, strict=True):
                output = folder / f"{command[0]}.out"
                assert process.poll() is None, f"{command[0]} ended:\n{output.read_text()[-3000:]}"
            states = subprocess.run(["sinfo", "-h", "-o", "%t"], env=env, capture_output=True, text=True)
            return states.stdout.strip() == "idle"

        wait_until(idle, "the SLURM node becomes idle", 90)
        yield env
    finally:
        for process in reversed(running):
            process.terminate()
        for process in reversed(running):
            process.wait(timeout=30)


def import_debian(name: str, root: Path, env: dict[str, str]) -> None:
    """Make a base image of a minimal Debian."""
    bootstrap = ["debootstrap", "--variant=minbase", "bookworm", str(root)]
    subprocess.run(bootstrap, check=True, stdout=subprocess.DEVNULL, timeout=900)
    archive = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(["podman", "import", "-", name], stdin=archive.stdout, check=True, env=env, timeout=600)
    assert archive.wait() == 0
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which ``podman run`` works, and the name of a base image in BASE_IMAGE.

    The base is the public image where BASE_IMAGE names one that is here, else a minimal Debian made on the spot.
    """
    need(
        {
            "podman": "podman",
            "runc": "runc",
            "buildah": "buildah",
            "fuse-overlayfs": "fuse-overlayfs",
            "newuidmap": "uidmap",
        }
    )
    env = dict(os.environ)
    base = env.setdefault("BASE_IMAGE", "localhost/predictgbm/base:bookworm")
    known = ["podman", "image", "exists", base]
    if subprocess.run(known, env=env).returncode:
        need({"debootstrap": "debootstrap"})
        if os.geteuid() != 0:
            pytest.skip(f"no image {base}, and debootstrap, which would make one, needs root")
        with alone():
            if subprocess.run(known, env=env).returncode:
                import_debian(base, tmp_path_factory.mktemp("base") / "root", env)
    # A machine without the right to raise limits, or with both versions of cgroups, needs runc and lower limits.
    settings = tmp_path_factory.mktemp("podman") / "containers.conf"
    settings.write_text(
        '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
        f'[engine]\nruntime = "{shutil.which("runc", path=os.environ["PATH"] + ":/usr/sbin") or "runc"}"\n'
    )
    errors = []
    for extra in ({}, {"CONTAINERS_CONF": str(settings)}):
        start = subprocess.run(
            ["podman", "run", "--rm", base, "true"],
            env=env | extra,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if start.returncode == 0:
            return env | extra
        errors.append(start.stderr.strip())
    pytest.skip("podman is installed but starts no container here: " + " / ".join(errors))
