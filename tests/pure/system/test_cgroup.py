"""What a control group allows, as its files say it."""

import pytest

from aioserve.system import cgroup

V2 = {"/proc/self/cgroup": "0::/\n"}
NESTED = {"/proc/self/cgroup": "0::/system.slice/app.service\n"}
V1 = {"/proc/self/cgroup": "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n2:cpuset:/\n"}
NOTHING = {}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        (NOTHING, None),
        (V2, None),
        ({**V2, "/sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({**V2, "/sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({**V2, "/sys/fs/cgroup/cpu.max": "nonsense"}, None),
        ({**NESTED, "/sys/fs/cgroup/system.slice/app.service/cpu.max": "300000 100000"}, 3.0),
        (
            {
                **NESTED,
                "/sys/fs/cgroup/system.slice/app.service/cpu.max": "max 100000",
                "/sys/fs/cgroup/system.slice/cpu.max": "50000 100000",
            },
            0.5,
        ),
        (
            {
                **V1,
                "/sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "200000\n",
                "/sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000\n",
            },
            2.0,
        ),
        # In a container the path is that of the host, and the group is what is mounted.
        ({**V1, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "25000", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000"}, 0.5),
        ({**V1, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_cpus(files, quota):
    assert cgroup.cpus(files.get) == quota


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        (NOTHING, None),
        ({**V2, "/sys/fs/cgroup/memory.max": "max\n"}, None),
        ({**V2, "/sys/fs/cgroup/memory.max": "536870912\n"}, 1 << 29),
        (
            {
                **NESTED,
                "/sys/fs/cgroup/system.slice/app.service/memory.max": "2000",
                "/sys/fs/cgroup/system.slice/memory.max": "1000",
            },
            1000,
        ),
        ({**V1, "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "4096\n"}, 4096),
        ({**V1, "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
    ],
)
def test_memory(files, limit):
    assert cgroup.memory(files.get) == limit


@pytest.mark.parametrize(
    ("affinity", "quota", "workers"),
    [(4, None, 4), (4, 2.0, 2), (4, 1.5, 2), (4, 0.1, 1), (2, 16.0, 2), (1, None, 1)],
)
def test_workers(affinity, quota, workers):
    assert cgroup.workers(affinity, quota) == workers


def test_files_that_cannot_be_read_say_nothing(tmp_path):
    (tmp_path / "x").write_text("1\n")
    assert (cgroup.read_text(f"{tmp_path}/x"), cgroup.read_text(f"{tmp_path}/y")) == ("1\n", None)


def test_this_machine_is_read_without_an_error():
    assert (cgroup.cpus(cgroup.read_text) or 1) > 0
    assert (cgroup.memory(cgroup.read_text) or 1) > 0
