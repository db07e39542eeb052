import pytest

from aioserve.system.oom import OomCounter


@pytest.fixture
def machine(tmp_path):
    """A root file system of ours: lines of /proc/self/cgroup, and files with counters."""

    def make(cgroup, **counters):
        files = {"proc/self/cgroup": cgroup, **counters}
        for path, text in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return make


EVENTS = "low 0\nhigh 0\nmax 3\noom 1\noom_kill {}\noom_group_kill 0\n"


@pytest.mark.parametrize(
    ("cgroup", "path", "text"),
    [
        ("0::/app.slice/web\n", "sys/fs/cgroup/app.slice/web/memory.events", EVENTS),
        ("0::/not/seen/from/here\n", "sys/fs/cgroup/memory.events", EVENTS),
        (
            "5:cpu,cpuacct:/\n4:memory:/web\n",
            "sys/fs/cgroup/memory/web/memory.oom_control",
            "under_oom 0\noom_kill {}\n",
        ),
        ("0::/\n", "proc/vmstat", "pgfault 7\noom_kill {}\n"),
    ],
    ids=["version 2", "container", "version 1", "machine"],
)
def test_a_kill_is_seen_once(machine, cgroup, path, text):
    root = machine(cgroup, **{path: text.format(2)})
    counter = OomCounter(root)
    assert not counter.grown()
    (root / path).write_text(text.format(3))
    assert (counter.grown(), counter.grown()) == (True, False)


def test_a_system_without_counters_has_no_kills(tmp_path):
    assert not OomCounter(tmp_path).grown()


def test_a_file_without_the_counter_is_passed_over(machine):
    root = machine("0::/web\n", **{"sys/fs/cgroup/web/memory.events": "low 0\n", "proc/vmstat": "oom_kill 1\n"})
    counter = OomCounter(root)
    (root / "proc/vmstat").write_text("oom_kill 2\n")
    assert counter.grown()
