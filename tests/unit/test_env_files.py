"""Files of settings: read whatever people have, refuse by name what is none, and judge who could have written them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared import env_files
from shared.errors import SettingFault

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another's file")


def read(path: Path, data: bytes = b"") -> env_files.EnvFile:
    if data:
        path.write_bytes(data)
    found = env_files.read(path)
    assert found is not None
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_what_is_not_there_is_none(path: Path) -> None:
    assert env_files.read(path) is None
    path.symlink_to("nowhere")
    assert env_files.read(path) is None


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b'\xef\xbb\xbfDB_HOST="a"\nDB_PORT="1"\n', {"DB_HOST": "a", "DB_PORT": "1"}),
        (b"DB_HOST=a", {"DB_HOST": "a"}),
        (b'export DB_HOST="a b"\n', {"DB_HOST": "a b"}),
        (b"DB_HOST=a\nDB_HOST=b\n", {"DB_HOST": "b"}),
        (b"DB_HOST=a\r\nDB_PORT=1\r\n", {"DB_HOST": "a", "DB_PORT": "1"}),
        (b"DB_HOST=$HOME ${HOME}\n", {"DB_HOST": "$HOME ${HOME}"}),
        (b"# nothing\n\n", {}),
    ],
)
def test_bom_export_twice_and_a_missing_last_newline_lose_no_setting(
    path: Path, data: bytes, values: dict[str, str]
) -> None:
    assert read(path, data).values == values


def test_a_line_that_is_no_setting_is_named_by_its_number(path: Path) -> None:
    found = read(path, b"A=1\nwhat is this\nB=2\n")
    assert (found.values, found.unread) == ({"A": "1", "B": "2"}, (2,))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("DB_HOST=a\n".encode("utf-16"), "UTF-16"),
        (b"DB_HOST=a\nX=\xff\n", "line 2"),
        (b"DB_HOST=a\0b\n", "NUL"),
        (b"#" * (env_files.MOST_BYTES + 1), "longer"),
    ],
)
def test_what_is_no_text_of_settings_is_refused_by_name(path: Path, data: bytes, said: str) -> None:
    path.write_bytes(data)
    with pytest.raises(SettingFault, match=said) as caught:
        env_files.read(path)
    assert str(path) in str(caught.value)


def test_a_directory_a_fifo_and_a_100_mb_file_are_refused_at_once(path: Path, tmp_path: Path) -> None:
    path.mkdir()
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(100 << 20)
    for name, said in ((".env", "directory"), ("fifo", "fifo"), ("large", "longer")):
        with pytest.raises(SettingFault, match=said):
            env_files.read(tmp_path / name)


@pytest.mark.parametrize(("mode", "fault"), [(0o600, ""), (0o644, ""), (0o646, "everybody"), (0o666, "everybody")])
def test_a_file_that_everybody_can_write_is_not_the_users_word(path: Path, mode: int, fault: str) -> None:
    path.write_text("A=1")
    path.chmod(mode)
    found = read(path)
    assert (fault in found.fault, bool(found.fault)) == (True, bool(fault))
    assert bool(fault) == found.remedy.startswith("chmod o-w ")


@needs_root
def test_a_file_that_a_group_can_write_is_the_users_word_only_where_the_group_is_their_own(path: Path) -> None:
    path.write_text("A=1")
    path.chmod(0o664)
    assert read(path).fault == ""
    os.chown(path, 0, 1)
    assert "the group" in read(path).fault


@needs_root
def test_another_users_file_and_link_are_not_the_users_word(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("A=1")
    path.symlink_to(other)
    assert read(path).fault == ""
    os.chown(other, NOBODY, 0)
    assert "belongs to nobody" in read(path).fault
    os.chown(other, 0, 0)
    os.lchown(path, NOBODY, 0)
    assert "belongs to nobody" in read(path).fault


def test_the_digest_changes_with_the_lines_it_is_of_and_with_no_other(path: Path) -> None:
    first = read(path, b"A=1\nB=2\n").digest(["A"])
    assert read(path, b"A=1\nB=3\n").digest(["A"]) == first
    assert read(path, b"A=2\nB=2\n").digest(["A"]) != first
    assert read(path, b"B=2\n").digest(["A"]) != first
