from pathlib import Path

from protquant.running.memory.control_group import free_in_groups


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_groups_of_version_1_leave_their_limit_less_what_was_allocated(tmp_path: Path):
    own = tmp_path / "own"
    own.write_text("12:pids:/\n4:cpu,memory:/job\n")
    write(tmp_path / "memory" / "job", memory__limit_in_bytes="1000\n", memory__stat="cache 700\ntotal_rss 300\n")
    assert free_in_groups(own, tmp_path) == 700


def test_the_tightest_group_of_version_2_counts(tmp_path: Path):
    own = tmp_path / "own"
    own.write_text("0::/slice/job\n")
    write(tmp_path / "slice", memory__max="1000\n", memory__stat="anon 800\nfile 5\nshmem 100\n")
    write(tmp_path / "slice" / "job", memory__max="max\n", memory__stat="anon 100\nfile 5\n")
    assert free_in_groups(own, tmp_path) == 100


def test_a_container_whose_path_is_not_there_is_limited_by_the_root(tmp_path: Path):
    own = tmp_path / "own"
    own.write_text("0::/docker/abc\n")
    (tmp_path / "memory.max").write_text("500\n")
    (tmp_path / "memory.stat").write_text("anon 600\n")
    assert free_in_groups(own, tmp_path) == 0


def test_without_groups_nothing_is_limited(tmp_path: Path):
    assert free_in_groups(tmp_path / "none", tmp_path) is None
    own = tmp_path / "own"
    own.write_text("0::/\n")
    assert free_in_groups(own, tmp_path) is None
