"""Files are opened within the roots, without following links and without blocking, and read through one descriptor."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kimi_mcp.core.errors import KimiError, MediaRejected, PathRefused, TooManyFiles
from kimi_mcp.media.files import OpenFile, open_file
from kimi_mcp.media.roots import Roots, find_roots
from tests.media.ways import WAYS, opened

SECRET = "what stands outside"
MOST = 1_000_000
OPEN = Path("/proc/self/fd")
RACES = int(os.environ.get("RACE_READS", "1000"))
"""Reads of each race; `RACE_READS=100000` for the whole of it."""


@pytest.fixture
def tree(tmp_path: Path) -> SimpleNamespace:
    inside, outside = tmp_path / "allowed", tmp_path / "elsewhere"
    (inside / "sub").mkdir(parents=True)
    outside.mkdir()
    (inside / "a.txt").write_text("inside")
    (inside / "sub" / "b.txt").write_text("deeper")
    (outside / "outside.txt").write_text(SECRET)
    (tmp_path / "allowed_evil").mkdir()
    (tmp_path / "allowed_evil" / "outside.txt").write_text(SECRET)
    roots = find_roots(str(inside), working=str(tmp_path))
    return SimpleNamespace(inside=inside, outside=outside, roots=roots, top=tmp_path)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tree: SimpleNamespace) -> str:
    """Both ways down from the root."""
    tree.roots = opened(tree.roots, request.param)
    return request.param


def read(path: str, roots: Roots) -> bytes:
    with open_file(roots.resolve(path)) as file:
        return file.read_at(0, MOST)


def refusal(path: str, tree: SimpleNamespace) -> KimiError:
    """The refusal of a path; whatever it says, it names nothing outside the root."""
    with pytest.raises(PathRefused) as refused:
        read(path, tree.roots)
    text = refused.value.message + refused.value.fix
    for word in (str(tree.top), "elsewhere", "evil", "outside.txt", SECRET):
        assert word not in text, text
    assert refused.value.fix
    return refused.value


def at_once(refuse: Callable[[], KimiError]) -> KimiError:
    """What ``refuse`` returns; a call that blocks fails the test instead of hanging it."""
    done: list[KimiError] = []
    thread = threading.Thread(target=lambda: done.append(refuse()), daemon=True)
    thread.start()
    thread.join(5)
    assert done, "refused with nothing, or blocked"
    return done[0]


def open_descriptors() -> int:
    """How many this process has; 0 where the system doesn't tell."""
    return len(list(OPEN.iterdir())) if OPEN.is_dir() else 0


@contextmanager
def no_descriptor_is_left() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


# ------------------------------------------------------------------------------------------------ what is read


@pytest.mark.usefixtures("way")
def test_a_file_within_is_read_under_each_of_its_names(tree: SimpleNamespace) -> None:
    with no_descriptor_is_left():
        for path in ("sub/b.txt", "./sub/../sub/b.txt", str(tree.inside / "sub" / "b.txt")):
            with open_file(tree.roots.resolve(path)) as file:
                assert (file.name, file.size) == ("sub/b.txt", 6)
                assert file.read_at(0, MOST) == b"deeper"


def test_one_descriptor_serves_pieces_and_the_whole(tree: SimpleNamespace) -> None:
    content = os.urandom(700_001)
    (tree.inside / "clip.mp4").write_bytes(content)
    with open_file(tree.roots.resolve("clip.mp4")) as file:
        assert file.read_at(0, 256 * 1024) == content[: 256 * 1024]
        assert file.read_at(5, 1000) == content[5:1005]
        assert file.read_at(700_000, 1000) == content[-1:]
        assert file.read_at(700_001, 1000) == b""
        assert file.read_at(0, MOST) == content
        assert file.head == content[:8192]


def test_what_was_judged_is_what_is_read_though_its_name_leads_elsewhere_by_now(tree: SimpleNamespace) -> None:
    with open_file(tree.roots.resolve("a.txt")) as file:
        (tree.inside / "a.txt").unlink()
        (tree.inside / "a.txt").symlink_to(tree.outside / "outside.txt")
        assert file.read_at(0, MOST) == b"inside"


def test_a_large_file_is_read_in_flat_memory(tree: SimpleNamespace) -> None:
    with (tree.inside / "clip.mp4").open("wb") as clip:
        clip.truncate(50_000_000)
    with open_file(tree.roots.resolve("clip.mp4")) as file:
        tracemalloc.start()
        try:
            assert sum(len(file.read_at(at, 500_000)) for at in range(0, 50_000_000, 500_000)) == 50_000_000
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
            tracemalloc.reset_peak()
            file.read_at(0, 50_000_000)
            assert tracemalloc.get_traced_memory()[1] < 52_000_000, "the whole of a file is held once"
        finally:
            tracemalloc.stop()


def test_a_sparse_file_of_ten_gigabytes_is_refused_by_its_size_before_reading(tree: SimpleNamespace) -> None:
    with (tree.inside / "sparse.bin").open("wb") as sparse:
        sparse.truncate(10 * 1024**3)
    refused = pytest.raises(MediaRejected, match=r"`sparse.bin` has 10,737,418,240 bytes; at most 1,000,000")
    with open_file(tree.roots.resolve("sparse.bin")) as file, refused:
        file.check_size(MOST)


def test_a_file_that_grows_is_read_as_far_as_it_was_judged(tree: SimpleNamespace) -> None:
    with open_file(tree.roots.resolve("a.txt")) as file:
        with (tree.inside / "a.txt").open("ab") as more:
            more.write(b"x" * 3_000_000)
        assert file.read_at(0, MOST) == b"inside"
        assert file.read_at(0, MOST) == b"inside"


def test_a_file_that_shrinks_is_no_silent_success(tree: SimpleNamespace) -> None:
    with open_file(tree.roots.resolve("a.txt")) as file:
        os.truncate(tree.inside / "a.txt", 3)
        for read_it in (lambda: file.read_at(0, MOST), lambda: file.read_at(3, 3)):
            with pytest.raises(PathRefused, match=r"`a\.txt` became shorter while it was read"):
                read_it()


def test_a_hard_link_is_the_file_it_is(tree: SimpleNamespace) -> None:
    os.link(tree.inside / "a.txt", tree.inside / "same.txt")
    with open_file(tree.roots.resolve("a.txt")) as one, open_file(tree.roots.resolve("same.txt")) as other:
        assert one.identity == other.identity
        assert other.read_at(0, MOST) == b"inside"


def test_closing_twice_does_no_harm_and_forgetting_to_leaks_nothing(tree: SimpleNamespace) -> None:
    with no_descriptor_is_left():
        file = open_file(tree.roots.resolve("a.txt"))
        file.close()
        file.close()


# --------------------------------------------------------------------------------------------- what is refused


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "path", ["../elsewhere/outside.txt", "sub/../../elsewhere/outside.txt", "../allowed_evil/outside.txt"]
)
def test_no_path_leaves_the_roots(path: str, tree: SimpleNamespace) -> None:
    assert "outside" in refusal(path, tree).message
    assert "outside" in refusal(str(tree.inside / path), tree).message
    assert "outside" in refusal(os.path.normpath(tree.inside / path), tree).message


@pytest.mark.usefixtures("way")
def test_links_are_never_followed_wherever_they_stand_or_lead(tree: SimpleNamespace) -> None:
    links = {
        "leaf.txt": tree.outside / "outside.txt",
        "folder": tree.outside,
        "sub/up": Path("../../elsewhere"),
        "within.txt": Path("a.txt"),
        "loop": Path("loop"),
        "magic": Path("/proc/self/root"),
    }
    for name, target in links.items():
        (tree.inside / name).symlink_to(target)
    with no_descriptor_is_left():
        for path in (
            "leaf.txt",
            "folder/outside.txt",
            "folder/missing.txt",
            "sub/up/outside.txt",
            "within.txt",
            "loop",
        ):
            link = path if path in links else path.rpartition("/")[0]
            if "outside.txt" in path:
                with pytest.raises(PathRefused) as refused:
                    read(path, tree.roots)
                error: KimiError = refused.value
            else:
                error = refusal(path, tree)
            assert error.message.startswith(f"`{link}` is a link"), error.message
            assert "KIMI_ROOTS" in error.fix or "itself" in error.fix or "roots" in error.fix
        assert "magic" in refusal("magic/etc/hostname", tree).message


@pytest.mark.usefixtures("way")
def test_whether_a_file_behind_a_link_exists_is_not_shown(tree: SimpleNamespace) -> None:
    (tree.inside / "folder").symlink_to(tree.outside)
    with pytest.raises(PathRefused) as there:
        read("folder/outside.txt", tree.roots)
    with pytest.raises(PathRefused) as missing:
        read("folder/nothing.txt", tree.roots)
    assert there.value.message == missing.value.message


@pytest.mark.usefixtures("way")
def test_special_files_are_refused_at_once(tree: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tree.inside / "pipe")
    monkeypatch.chdir(tree.inside)  # a socket's whole path may be too long for its address
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        expected = {"pipe": "a pipe", "socket": "a socket", "sub": "a folder", ".": "a folder", "a.txt/b": "no folder"}
        with no_descriptor_is_left():
            for name, words in expected.items():
                assert words in at_once(lambda name=name: refusal(name, tree)).message


@pytest.mark.usefixtures("way")
def test_a_pipe_that_takes_a_files_place_after_the_look_does_not_block_either(
    tree: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tree.inside / "pipe")
    pipe, opening = tree.inside / "pipe", os.open

    def swap_and_open(name: Any, *args: Any, **options: Any) -> int:
        if str(name).endswith("a.txt") and pipe.exists():
            pipe.rename(tree.inside / "a.txt")
        return opening(name, *args, **options)

    monkeypatch.setattr(os, "open", swap_and_open)
    with no_descriptor_is_left():
        assert "a pipe" in at_once(lambda: refusal("a.txt", tree)).message
    assert not pipe.exists()


def test_devices_and_the_systems_own_views_are_refused_even_where_everything_is_a_root() -> None:
    roots = find_roots("/")
    for path in ("/dev/zero", "/dev/null", "/dev/tty", "/proc/self/environ", "/proc/self/mem", "/sys/kernel/version"):
        with pytest.raises(PathRefused, match="processes and devices"):
            open_file(roots.resolve(path))
    roots = find_roots("/proc/self")
    with pytest.raises(PathRefused):
        open_file(roots.resolve("environ"))


@pytest.mark.usefixtures("way")
def test_a_device_within_a_root_is_refused(tree: SimpleNamespace) -> None:
    try:
        os.mknod(tree.inside / "zero", 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")
    assert "a device" in refusal("zero", tree).message


@pytest.mark.usefixtures("way")
def test_what_is_missing_or_unspeakable_says_so_in_one_line(tree: SimpleNamespace) -> None:
    assert refusal("missing.txt", tree).message == "`missing.txt` is not there."
    assert refusal("sub/no/such", tree).message.endswith("is not there.")
    assert "is not there" in refusal("x" * 300, tree).message
    assert "\n" not in refusal("line\nbreak\x1b[31m", tree).message
    refusal("nul\0byte", tree)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_the_right_to_read_says_whose_right_is_missing(tree: SimpleNamespace) -> None:
    (tree.inside / "a.txt").chmod(0)
    assert "may not be read" in refusal("a.txt", tree).message


def test_a_root_whose_place_a_link_took_is_refused(tree: SimpleNamespace) -> None:
    tree.inside.rename(tree.top / "moved")
    tree.inside.symlink_to(tree.outside)
    with pytest.raises(PathRefused, match="The root folder is not there any more"):
        open_file(tree.roots.resolve("outside.txt"))


@pytest.fixture
def no_descriptor_left(tree: SimpleNamespace) -> Iterator[None]:
    del tree  # it is made first
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 40, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in taken:
            os.close(descriptor)


@pytest.mark.usefixtures("no_descriptor_left")
def test_without_a_descriptor_left_the_error_says_so_and_names_the_limit(tree: SimpleNamespace) -> None:
    with pytest.raises(TooManyFiles, match="as many files open as it may") as refused:
        open_file(tree.roots.resolve("a.txt"))
    assert refused.value.retryable
    assert refused.value.code == "path_refused"
    assert "ulimit -n" in refused.value.fix


def test_an_operators_root_may_be_reached_through_a_link(tree: SimpleNamespace) -> None:
    (tree.top / "named").symlink_to(tree.inside)
    roots = find_roots(str(tree.top / "named"), working=str(tree.top))
    assert read("a.txt", roots) == b"inside"
    assert read(str(tree.top / "named" / "a.txt"), roots) == b"inside"


# ----------------------------------------------------------------------------------------------------- races


def race(swap: str, path: str, tree: SimpleNamespace) -> dict[str, int]:
    """Read ``path`` again and again while a thread swaps the name ``swap`` between a good thing and a link outside."""
    name = tree.inside / swap
    good, link = tree.top / "good", tree.top / "link"
    link.symlink_to(tree.outside / "outside.txt" if swap == path else tree.outside)
    name.rename(good)
    good.rename(name)
    stop, went_round = threading.Event(), threading.Event()

    def swapping() -> None:
        while not stop.is_set():
            name.rename(good)
            link.rename(name)
            name.rename(link)
            good.rename(name)
            went_round.set()

    seen = {"inside": 0, "refused": 0, "escaped": 0}
    thread = threading.Thread(target=swapping)
    thread.start()
    try:
        assert went_round.wait(5)
        for _ in range(RACES):
            try:
                content = read(path, tree.roots)
            except PathRefused:
                seen["refused"] += 1
            else:
                seen["inside" if content != SECRET.encode() else "escaped"] += 1
    finally:
        stop.set()
        thread.join(5)
    return seen


@pytest.mark.parametrize(("swap", "path"), [("swapped.txt", "swapped.txt"), ("swapped", "swapped/outside.txt")])
def test_a_swapping_link_never_leads_outside(swap: str, path: str, tree: SimpleNamespace) -> None:
    if swap == path:
        (tree.inside / swap).write_text("good")
    else:
        (tree.inside / swap).mkdir()
        (tree.inside / path).write_text("good")
    with no_descriptor_is_left():
        seen = race(swap, path, tree)
    assert seen["escaped"] == 0
    assert seen["inside"], "the race was never won: it proves nothing"
    assert seen["refused"], "the link was never met: it proves nothing"


def test_an_opened_file_does_not_show_its_path(tree: SimpleNamespace) -> None:
    with open_file(tree.roots.resolve("a.txt")) as file:
        assert isinstance(file, OpenFile)
        assert str(tree.inside) not in repr(file)
