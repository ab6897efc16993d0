"""Files are whole and on the disk, and errors name them."""

import os
import resource
import stat
from pathlib import Path

import pytest

from organics.files.atomic import append, naming, read_whole, remove_leftovers, write_atomically


@pytest.fixture
def events(monkeypatch):
    """What reaches the disk, in order: a file (its size) or a folder; and when it is renamed."""
    found = []
    sync, replace = os.fsync, Path.replace

    def synced(descriptor):
        status = os.fstat(descriptor)
        found.append("folder" if stat.S_ISDIR(status.st_mode) else status.st_size)
        sync(descriptor)

    def replaced(self, target):
        found.append("renamed")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    return found


def test_the_data_are_on_the_disk_before_the_name_and_the_name_on_return(tmp_path, events):
    for content in (b"first", b"the second"):
        write_atomically(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert events == [5, "renamed", "folder", 10, "renamed", "folder"]


def test_what_is_added_is_on_the_disk_on_return(tmp_path, events):
    append(tmp_path / "file", b"one")
    append(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"onetwo"
    assert events == [3, "folder", 6]


@pytest.mark.parametrize("write", [write_atomically, append])
def test_a_full_disk_is_named_with_file_and_folder(tmp_path, write):
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OSError, match=f"^cannot write {path}: File too large$"):
            write(path, bytes(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes().startswith(b"old") and len(list(path.parent.iterdir())) == 1


def test_an_error_keeps_its_class_and_number(tmp_path):
    refused = pytest.raises(IsADirectoryError, match=f"^cannot read {tmp_path}: Is a directory$")
    with refused as caught, naming(tmp_path, "read"):
        tmp_path.open()
    assert caught.value.errno == 21
    with pytest.raises(PermissionError, match="cannot read x: nobody may$"), naming("x", "read"):
        raise PermissionError("nobody may")


def test_only_so_many_bytes_of_a_regular_file_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_whole(tmp_path / "file", 5) == b"12345"
    with pytest.raises(ValueError, match="has 5 bytes; at most 4 are read"):
        read_whole(tmp_path / "file", 4)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ValueError, match="not a regular file"):
            read_whole(path, 5)
    with pytest.raises(FileNotFoundError, match=f"cannot read {tmp_path}/nothing: No such"):
        read_whole(tmp_path / "nothing", 5)


def test_leftovers_are_removed_and_nothing_else(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda *_: os.kill(os.getpid(), 0))  # never renamed
        patched.setattr(Path, "unlink", lambda *_, **__: None)  # as of a killed process
        write_atomically(tmp_path / "file", b"left over")
    assert len(list(tmp_path.iterdir())) == 1
    for name in ("kept.tmp", ".kept"):
        (tmp_path / name).write_bytes(b"")
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"kept.tmp", ".kept"}


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_a_file_keeps_its_permissions_and_a_link_its_file(tmp_path):
    private, link = tmp_path / "private", tmp_path / "link"
    private.write_bytes(b"old")
    private.chmod(0o600)
    link.symlink_to(private)
    write_atomically(link, b"new")
    assert link.is_symlink() and private.read_bytes() == b"new"
    assert private.stat().st_mode & 0o777 == 0o600
