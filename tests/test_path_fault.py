"""Which folders nobody else can exchange."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from streamconv import ownership

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders of another user")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of ours in one of ours."""
    (tmp_path / "above" / "folder").mkdir(parents=True, mode=0o755)
    return tmp_path / "above" / "folder"


@pytest.mark.parametrize(
    ("mode", "above", "fault"),
    [
        (0o755, 0o755, ""),
        (0o700, 0o1777, ""),
        (0o777, 0o755, "folder can be written by others (mode 0777)"),
        (0o1777, 0o755, "folder can be written by others (mode 1777)"),
        (0o702, 0o755, "folder can be written by others (mode 0702)"),
        (0o755, 0o777, "above can be written by others (mode 0777)"),
    ],
)
def test_a_folder_is_safe_where_nobody_else_can_rename_what_leads_to_it(
    folder: Path, mode: int, above: int, fault: str
) -> None:
    folder.chmod(mode)
    folder.parent.chmod(above)
    assert ownership.path_fault(folder).removeprefix(f"{folder.parent}/").removeprefix(f"{folder.parents[1]}/") == fault


def test_a_sticky_folder_may_hold_another_but_nothing_else(folder: Path) -> None:
    folder.chmod(0o1777)
    assert ownership.path_fault(folder)
    assert not ownership.path_fault(folder, shared=True)
    folder.chmod(0o777)
    assert ownership.path_fault(folder, shared=True)


@pytest.mark.parametrize(
    ("user", "group", "members", "fault"),
    [
        ("ann", "ann", [], False),
        ("ann", "ann", ["ann"], False),
        ("ann", "ann", ["ann", "bob"], True),
        ("ann", "users", [], True),
        (None, "ann", [], True),
        ("ann", None, [], True),
    ],
)
def test_a_group_of_this_user_alone_may_write(
    folder: Path, user: str | None, group: str | None, members: list[str], fault: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entry(found: str | None, **values: object) -> SimpleNamespace:
        if found is None:
            raise KeyError
        return SimpleNamespace(**values)

    gid = folder.stat().st_gid
    monkeypatch.setattr(ownership.pwd, "getpwuid", lambda _: entry(user, pw_name=user, pw_gid=gid))
    monkeypatch.setattr(ownership.grp, "getgrgid", lambda _: entry(group, gr_name=group, gr_mem=members))
    folder.parent.chmod(0o775)
    assert bool(ownership.path_fault(folder)) == fault
    folder.parent.chmod(0o777)
    assert ownership.path_fault(folder)


@as_root
def test_root_trusts_nobody_else_not_even_the_owner_of_the_folder_above(folder: Path) -> None:
    for path in (folder, folder.parent):
        os.chown(path, NOBODY, NOBODY)
        assert "belongs to user 65534, not to 0" in ownership.path_fault(folder)


@as_root
def test_a_link_of_somebody_else_is_not_followed(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder.parent)
    assert not ownership.path_fault(link / "folder")
    os.lchown(link, NOBODY, NOBODY)
    assert ownership.path_fault(link / "folder") == f"{link} belongs to user 65534, not to 0"
