"""Whether the kernel has killed where a process lives: with the files that kernels show under various kinds of control groups."""

import signal
from pathlib import Path

import pytest

from treadle.nanny.oom import RECENT_S, OomKills
from treadle.nanny.watch import why_out_of_memory

PID = 77
MOUNT_1 = "35 31 0:32 {top} /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
MOUNT_2 = "30 24 0:27 {top} {at} rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
OTHERS = "24 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\ntorn\n"


class Kernel:
    """Its files, under a directory."""

    def __init__(self, root: Path):
        self.root = root
        self.write("proc/vmstat", "nr_free_pages 100\noom_kill 4\nnuma_hit 5\n")

    def write(self, name, text):
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def mounts(self, text):
        self.write("proc/self/mountinfo", OTHERS + text)

    def member(self, text, pid=PID):
        self.write(f"proc/{pid}/cgroup", text)

    def count(self, group, number):
        """Of ``group``, a directory or a file in it."""
        if group == "vmstat":
            self.write("proc/vmstat", f"nr_free_pages 100\noom_kill {number}\nnuma_hit 5\n")
        elif Path(group).name.startswith("memory.events"):
            self.write(group, f"low 0\nhigh 3\nmax 8\noom 9\noom_kill {number}\noom_group_kill 0\n")
        else:
            self.write(f"{group}/memory.oom_control", f"oom_kill_disable 0\nunder_oom 0\noom_kill {number}\n")


@pytest.fixture
def kernel(tmp_path):
    return Kernel(tmp_path)


def watched(kernel):
    kills = OomKills(kernel.root)
    kills.look(PID, 0.0)
    return kills


HYBRID = "9:name=systemd:/\n4:memory:/jobs/7\n1:cpu:/\n0::/\n"
# What the process is in, the mounts, where it is counted, what is counted elsewhere.
PLACES = {
    "version 1": (HYBRID, MOUNT_1.format(top="/"), "sys/fs/cgroup/memory/jobs/7", ["sys/fs/cgroup/memory", "sys/fs/cgroup/memory/jobs"]),
    "version 1, with others": ("4:cpu,memory:/jobs/7\n", MOUNT_1.format(top="/"), "sys/fs/cgroup/memory/jobs/7", []),
    "version 1, its root": ("4:memory:/\n", MOUNT_1.format(top="/"), "sys/fs/cgroup/memory", ["sys/fs/cgroup/memory/jobs"]),
    "version 1, a container that knows its name": (
        "4:memory:/docker/ab\n",
        MOUNT_1.format(top="/docker/ab"),
        "sys/fs/cgroup/memory",
        ["sys/fs/cgroup/memory/docker/ab"],
    ),
    "version 1 for memory, version 2 for the rest": (
        HYBRID,
        MOUNT_2.format(top="/", at="/sys/fs/cgroup/unified") + MOUNT_1.format(top="/"),
        "sys/fs/cgroup/memory/jobs/7",
        ["sys/fs/cgroup/unified/memory.events"],
    ),
    "version 2": (
        "0::/user.slice/session-3.scope\n",
        MOUNT_2.format(top="/", at="/sys/fs/cgroup"),
        "sys/fs/cgroup/user.slice/session-3.scope/memory.events.local",
        [
            "sys/fs/cgroup/user.slice/session-3.scope/memory.events",
            "sys/fs/cgroup/user.slice/memory.events.local",
            "sys/fs/cgroup/user.slice/memory.events",
        ],
    ),
    "version 2, an old kernel": (
        "0::/user.slice/session-3.scope\n",
        MOUNT_2.format(top="/", at="/sys/fs/cgroup"),
        "sys/fs/cgroup/user.slice/session-3.scope/memory.events",
        ["sys/fs/cgroup/user.slice/memory.events"],
    ),
    "version 2, memory is accounted for in the group around it": (
        "0::/pods/a/inner\n",
        MOUNT_2.format(top="/", at="/sys/fs/cgroup"),
        "sys/fs/cgroup/pods/a/memory.events.local",
        ["sys/fs/cgroup/pods/memory.events.local", "sys/fs/cgroup/pods/memory.events"],
    ),
    "version 2, a container": (
        "0::/\n",
        MOUNT_2.format(top="/", at="/sys/fs/cgroup"),
        "sys/fs/cgroup/memory.events.local",
        ["sys/fs/cgroup/system.slice/memory.events.local"],
    ),
    "version 2, a container that knows its name": (
        "0::/kubepods/pod1\n",
        MOUNT_2.format(top="/kubepods/pod1", at="/sys/fs/cgroup"),
        "sys/fs/cgroup/memory.events.local",
        ["sys/fs/cgroup/kubepods/pod1/memory.events.local"],
    ),
    "version 2, beside the container's own": (
        "0::/../other\n",
        MOUNT_2.format(top="/", at="/sys/fs/cgroup") + MOUNT_2.format(top="/..", at="/host\\040groups"),
        "host groups/other/memory.events.local",
        ["sys/fs/cgroup/memory.events.local", "sys/fs/other/memory.events.local", "sys/fs/cgroup/other/memory.events.local"],
    ),
    "version 2, not in a group": ("0::/\n", MOUNT_2.format(top="/", at="/sys/fs/cgroup"), "vmstat", []),
    "a group that is not to be seen": (
        "4:memory:/docker/ab\n",
        MOUNT_1.format(top="/docker/cd"),
        "vmstat",
        ["sys/fs/cgroup/memory", "sys/fs/cgroup/memory/docker/ab"],
    ),
    "no control groups": ("", "", "vmstat", []),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_kill_is_counted_where_the_process_is_and_nowhere_else(kernel, place):
    member, mounts, own, elsewhere = PLACES[place]
    kernel.member(member)
    kernel.mounts(mounts)
    others = [*elsewhere, *(["vmstat"] if own != "vmstat" else [])]
    for group in (own, *others):
        kernel.count(group, 4)
    kills = watched(kernel)
    assert not kills.lately(1.0)
    for group in others:
        kernel.count(group, 9)
    assert not kills.lately(2.0)
    kernel.count(own, 5)
    assert kills.lately(3.0)


def in_jobs(kernel):
    kernel.member(HYBRID)
    kernel.mounts(MOUNT_1.format(top="/"))
    for group in ("sys/fs/cgroup/memory", "sys/fs/cgroup/memory/jobs/7", "sys/fs/cgroup/memory/jobs/8"):
        kernel.count(group, 0)
    return watched(kernel)


def test_a_kill_of_long_ago_explains_nothing(kernel):
    kills = in_jobs(kernel)
    kernel.count("sys/fs/cgroup/memory/jobs/7", 1)
    kills.look(PID, 100.0)
    assert kills.lately(100.0 + RECENT_S)
    assert not kills.lately(100.5 + RECENT_S)
    kernel.count("sys/fs/cgroup/memory/jobs/7", 2)
    assert kills.lately(1000.0)


def test_a_process_that_is_seen_while_it_is_being_killed(kernel):
    kills = in_jobs(kernel)
    # The kernel counts, then sends the signal; then the process is shown in the root of its hierarchy until it is gone.
    kernel.count("sys/fs/cgroup/memory/jobs/7", 1)
    kernel.member(HYBRID.replace("/jobs/7", "/"))
    kills.look(PID, 1.0)
    kills.look(PID, 1.1)
    (kernel.root / f"proc/{PID}/cgroup").unlink()
    kills.look(PID, 1.2)
    assert kills.lately(1.3)


def test_a_process_that_is_moved_is_followed(kernel):
    kills = in_jobs(kernel)
    kernel.count("sys/fs/cgroup/memory/jobs/8", 3)
    kernel.member(HYBRID.replace("/jobs/7", "/jobs/8"))
    kills.look(PID, 1.0)
    kernel.count("sys/fs/cgroup/memory/jobs/7", 1)
    assert not kills.lately(2.0)
    kernel.count("sys/fs/cgroup/memory/jobs/8", 4)
    assert kills.lately(3.0)


def test_it_is_counted_from_the_parent_s_place_on_before_there_is_a_process(kernel):
    kernel.member(HYBRID, pid="self")
    kernel.member(HYBRID)
    kernel.mounts(MOUNT_1.format(top="/"))
    kernel.count("sys/fs/cgroup/memory/jobs/7", 0)
    kills = OomKills(kernel.root)
    kills.look("self", 0.0)
    kernel.count("sys/fs/cgroup/memory/jobs/7", 1)
    kills.look(PID, 1.0)
    assert kills.lately(1.0)


def test_a_group_that_is_removed_or_made_again_tells_nothing(kernel):
    kills = in_jobs(kernel)
    file = kernel.root / "sys/fs/cgroup/memory/jobs/7/memory.oom_control"
    kernel.count("sys/fs/cgroup/memory/jobs/7", 8)
    kills.look(PID, 1.0)
    file.unlink()
    assert not kills.lately(2.0 + RECENT_S)
    kernel.count("sys/fs/cgroup/memory/jobs/7", 2)
    assert not kills.lately(3.0 + RECENT_S)
    kernel.count("sys/fs/cgroup/memory/jobs/7", 3)
    assert kills.lately(4.0 + RECENT_S)


def test_a_system_that_counts_nothing_tells_nothing(tmp_path):
    kills = OomKills(tmp_path)
    kills.look("self", 0.0)
    kills.look(PID, 1.0)
    assert not kills.lately(2.0)


MIB = 2**20


def test_the_reason_is_told_in_words():
    kernel = "the kernel's out-of-memory killer ended it; it was last seen with 100.00 MiB, "
    assert why_out_of_memory(-signal.SIGKILL, True, 100 * MIB, 0) == kernel + "it has no memory limit"
    assert why_out_of_memory(-signal.SIGKILL, True, 100 * MIB, 400 * MIB) == kernel + "its memory limit is 400.00 MiB"
    assert "never seen alive" in why_out_of_memory(-signal.SIGKILL, True, 0, 0)
    words = "it was last seen with 390.00 MiB, over 95% of its memory limit of 400.00 MiB"
    assert why_out_of_memory(-signal.SIGKILL, False, 390 * MIB, 400 * MIB) == words


@pytest.mark.parametrize(
    ("exitcode", "killed_by_kernel", "last_rss_bytes", "memory_limit"),
    [(-signal.SIGKILL, False, 90, 100), (-signal.SIGKILL, False, 97, 0), (-signal.SIGSEGV, True, 97, 100), (1, True, 97, 100)],
)
def test_other_ends_are_not_for_want_of_memory(exitcode, killed_by_kernel, last_rss_bytes, memory_limit):
    assert why_out_of_memory(exitcode, killed_by_kernel, last_rss_bytes, memory_limit) == ""
