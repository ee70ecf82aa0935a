"""Which folders may be read, and where a path lies within them."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from kimi_mcp.core.errors import InvalidArguments, PathRefused
from kimi_mcp.media.roots import Roots, find_roots, path_of_uri

BROAD = ["/", "/home", "/home/somebody", "/root", "/Users/somebody", "/etc", "/etc/nginx", "/usr/lib/python3", "/proc",
         "/dev", "/tmp", "/var", "/var/lib", "/opt", "/srv", "/System/Library", "/Applications"]  # fmt: skip
PROJECTS = ["/home/somebody/work", "/site/main", "/app", "/opt/app", "/srv/site", "/var/www/site", "/usr/src/app",
            "/tmp/try", "/private/var/folders/ab/cd/T/x", "/Users/somebody/code"]  # fmt: skip


def plain(named: str | None, offered: list[str] | None = None, *, working: str = "/site/here") -> Roots:
    return find_roots(named, offered, working=working, environment={"HOME": "/home/me"})


def paths(roots: Roots) -> list[str]:
    return [root.path for root in roots.folders]


def test_the_operator_names_folders_as_in_path() -> None:
    roots = plain(os.pathsep.join(["/a/b", " ~/c ", "", "near", "/a/b/"]))
    assert paths(roots) == ["/a/b", "/home/me/c", "/site/here/near"]
    assert roots.source == "KIMI_ROOTS"


def test_the_operator_may_name_a_home_and_even_everything() -> None:
    assert paths(plain("/home/me")) == ["/home/me"]
    assert paths(plain("/")) == ["/"]


def test_the_operator_goes_before_the_host_and_the_host_before_the_working_directory() -> None:
    offered = ["file:///offered/one", "file:///offered/two%20words"]
    assert paths(plain("/named", offered)) == ["/named"]
    assert paths(plain(None, offered)) == ["/offered/one", "/offered/two words"]
    assert paths(plain(None, [])) == ["/site/here"]
    assert paths(plain("  ", None)) == ["/site/here"]


@pytest.mark.parametrize("folder", [*BROAD, "/home/me"])
def test_a_broad_folder_is_never_a_root_by_default(folder: str) -> None:
    for roots in (plain(None, working=folder), plain(None, [f"file://{folder}"])):
        assert roots.folders == ()
        with pytest.raises(PathRefused, match="No folder may be read: KIMI_ROOTS is not set") as refused:
            roots.resolve("x")
        assert "KIMI_ROOTS" in refused.value.fix


def test_the_home_of_the_account_and_what_holds_it_are_broad_whatever_home_says() -> None:
    own = str(Path(pwd.getpwuid(os.getuid()).pw_dir).resolve())
    assert find_roots(None, working=own, environment={}).folders == ()
    holds = find_roots(None, working="/data", environment={"HOME": "/data/people/me"})
    assert holds.folders == ()


@pytest.mark.parametrize("folder", PROJECTS)
def test_a_project_is_a_root_by_default(folder: str) -> None:
    assert paths(plain(None, working=folder)) == [folder]


def test_a_broad_folder_is_left_out_beside_a_good_one() -> None:
    assert paths(plain(None, ["file:///", "file:///site/main"])) == ["/site/main"]


@pytest.mark.parametrize(
    "uri", ["https://x/y", "file://server/share", "/plain", "file:relative", "file:///a%00b", "file://["]
)
def test_what_is_no_local_file_uri_is_no_root(uri: str) -> None:
    assert path_of_uri(uri) is None
    roots = plain(None, [uri])
    assert roots.folders == ()
    assert "no local folders" in roots.why_none


def test_a_root_named_through_a_link_is_known_by_both_names(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    roots = find_roots(str(tmp_path / "link"), working=str(tmp_path))
    for name in ("real", "link"):
        place = roots.resolve(str(tmp_path / name / "x.txt"))
        assert (place.root.path, place.parts) == (str(tmp_path / "real"), ("x.txt",))


def test_a_relative_path_counts_from_the_working_directory_within_the_roots_else_from_the_first_root() -> None:
    assert plain("/other" + os.pathsep + "/site").resolve("x").parts == ("here", "x")
    place = plain("/other" + os.pathsep + "/more").resolve("x")
    assert (place.root.path, place.parts) == ("/other", ("x",))


def test_the_innermost_root_holds_a_path() -> None:
    assert plain("/a" + os.pathsep + "/a/b").resolve("/a/b/c").root.path == "/a/b"


def test_a_tilde_is_the_home_and_a_name_after_it_is_a_name() -> None:
    roots = plain("/home/me/w")
    assert roots.resolve("~/w/x").parts == ("x",)
    assert roots.resolve("~root/x").parts == ("~root", "x")
    with pytest.raises(PathRefused):
        roots.resolve("~/.ssh/id_rsa")


@pytest.mark.parametrize(
    ("path", "parts"), [("a/../b", ("b",)), ("./b", ("b",)), ("../here/b", ("b",)), ("a//b/", ("a", "b"))]
)
def test_dots_are_taken_out_by_name(path: str, parts: tuple[str, ...]) -> None:
    assert plain("/site/here").resolve(path).parts == parts


@pytest.mark.parametrize(
    "path",
    ["..", "../x", "a/../../x", "/", "/etc/passwd", "/site/here_evil/x", "/site/hereafter", "//etc/passwd",
     "/site/here/../x", "/proc/self/environ", "x\0y", "\0", "\ud800", "x" * 5000, "~/secret-of-mine"],
)  # fmt: skip
def test_a_path_outside_is_refused_and_not_repeated(path: str) -> None:
    with pytest.raises(PathRefused) as refused:
        plain("/site/here").resolve(path)
    text = refused.value.message + refused.value.fix
    for word in ("etc", "passwd", "evil", "hereafter", "environ", "secret-of-mine", "/site", "xxxx", "\0"):
        assert word not in text
    assert "roots" in text or "folders" in text


def test_an_empty_path_is_a_wrong_argument() -> None:
    with pytest.raises(InvalidArguments):
        plain("/site/here").resolve("")


def test_the_fix_names_the_variable_whoever_named_the_roots() -> None:
    for roots in (plain("/a"), plain(None, ["file:///a/b"]), plain(None)):
        with pytest.raises(PathRefused) as refused:
            roots.resolve("/elsewhere")
        assert "KIMI_ROOTS" in refused.value.fix
