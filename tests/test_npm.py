"""What other tests have from npm: a program that starts, or a skip that says why there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hosts.upgrade import newest
from tests.npm import MCPB, NOWHERE, Npm, Program

pytestmark = pytest.mark.soak


def package(folder: Path, script: str) -> Program:
    """A package of our own, which needs no registry."""
    folder.mkdir()
    package = {"name": "moon", "version": "1.0.0", "bin": {"moon": "moon.js"}}
    (folder / "package.json").write_text(json.dumps(package), "utf-8")
    (folder / "moon.js").write_text(f"#!/usr/bin/env node\n{script}\n", "utf-8")
    return Program(name="moon", package=str(folder))


def lonely(tmp_path: Path) -> Npm:
    """npm with an empty cache and a registry that is not there."""
    return Npm(cache=str(tmp_path / "cache"), registry=NOWHERE, noproxy="127.0.0.1", offline="false")


def test_a_program_is_fetched_and_found(tmp_path: Path) -> None:
    found = lonely(tmp_path).path_of(package(tmp_path / "moon", "console.log('1.0.0')"))
    assert found.stem == "moon"
    assert tmp_path / "cache" in found.parents


def test_a_program_that_does_not_start_is_skipped_with_a_word(tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="moon does not start"):
        lonely(tmp_path).path_of(package(tmp_path / "moon", "process.exit(1)"))


def test_a_registry_that_is_silent_is_reported_and_asked_no_more(tmp_path: Path) -> None:
    npm = lonely(tmp_path)
    with pytest.raises(pytest.skip.Exception, match=r"mcpb.+can't be had from npm.+ECONNREFUSED"):
        npm.path_of(MCPB)
    with pytest.raises(pytest.skip.Exception, match="ENOTCACHED"):
        npm.path_of(Program(name="moon", package="moon@1.0.0"))


def test_a_pre_release_that_somebody_chose_is_not_moved_back() -> None:
    assert newest("moon@2.0.0-alpha.3") == "moon@2.0.0-alpha.3"
