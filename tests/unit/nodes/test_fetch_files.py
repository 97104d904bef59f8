from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from mesh import Context, InvalidInput, RequestError, SetupError, Unavailable
from mesh.partial import take_partial
from nodes.fetch import Fetch
from nodes.fetch.files import Roots
from nodes.fetch.references import FileReference
from nodes.fetch.settings import Root
from tests.unit.nodes.fetch_origin import ask, fetch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with files, beside one that holds a secret."""
    folder = tmp_path / "root"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"first")
    (folder / "inner" / "b c.txt").write_bytes(b"second")
    (folder / "empty").write_bytes(b"")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root-2").mkdir()
    (tmp_path / "root-2" / "a.txt").write_bytes(b"sibling")
    return folder


async def refusal(reference: str | bytes, root: Path, **settings: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await fetch(reference, roots=[root], **settings)
    error = caught.value
    assert (error.tensor, error.row) == ("reference", 0)
    return error


async def test_files_are_read_by_relative_and_absolute_references(root: Path) -> None:
    given = ["file:a.txt", "file:inner/b%20c.txt", f"file://{root}/a.txt", f"file:{root}/inner/b c.txt", "file:empty"]
    assert await fetch(*given, roots=[root]) == [b"first", b"second", b"first", b"second", b""]


async def test_roots_are_looked_through_in_order(root: Path) -> None:
    other = root.parent / "root-2"
    (other / "only").write_bytes(b"only")
    assert await fetch("file:a.txt", "file:only", roots=[root, other]) == [b"first", b"only"]
    assert await fetch("file:a.txt", roots=[other, root]) == [b"sibling"]


async def test_a_name_of_any_bytes_is_read(root: Path) -> None:
    (root / os.fsdecode(b"\xff\n")).write_bytes(b"odd")
    assert await fetch("file:%ff%0a", roots=[root]) == [b"odd"]


@pytest.mark.parametrize(
    "reference",
    [
        "file:../secret",
        "file:inner/../../secret",
        "file:%2e%2e/secret",
        "file:..%2fsecret",
        "file:inner/%2e%2e/%2e%2e/secret",
    ],
)
async def test_traversal_is_refused(root: Path, reference: str) -> None:
    assert "has no '..'" in (await refusal(reference, root)).text


async def test_a_path_outside_is_refused_whether_or_not_something_is_there(root: Path) -> None:
    texts = {
        (await refusal(f"file://{root.parent}/{name}", root)).text.replace(name, "it")
        for name in ("secret", "nothing", "root-2/a.txt", "root-2")
    }
    assert len(texts) == 1
    assert "outside" in texts.pop()


@pytest.mark.parametrize("target", ["../secret", "../nothing", "../root-2/a.txt", "/etc/passwd", "inner/out"])
async def test_a_link_out_of_the_root_is_refused(root: Path, target: str) -> None:
    (root / "inner" / "out").symlink_to("../../secret")
    (root / "link").symlink_to(target)
    error = await refusal("file:link", root)
    assert error.text == "tensor 'reference': file:link: it lies outside the roots"


async def test_a_folder_that_is_a_link_out_of_the_root_is_refused(root: Path) -> None:
    (root / "folder").symlink_to(root.parent / "root-2")
    assert "outside" in (await refusal("file:folder/a.txt", root)).text


async def test_a_link_inside_is_followed(root: Path) -> None:
    (root / "link").symlink_to("inner")
    (root / "again").symlink_to(root / "link" / "b c.txt")
    assert await fetch("file:again", "file:link/b c.txt", roots=[root]) == [b"second", b"second"]


async def test_a_link_from_one_root_into_another_is_followed(root: Path) -> None:
    other = root.parent / "root-2"
    (root / "link").symlink_to(other / "a.txt")
    assert await fetch("file:link", roots=[root, other]) == [b"sibling"]


async def test_a_root_may_be_a_link_that_moves_on(root: Path) -> None:
    current = root.parent / "current"
    current.symlink_to("root")
    async with Fetch(roots=[current]) as node:
        assert await ask(node, f"file://{current}/a.txt", f"file://{root}/a.txt") == [b"first", b"first"]
        current.unlink()
        current.symlink_to("root-2")
        assert await ask(node, f"file://{current}/a.txt", "file:a.txt") == [b"sibling", b"sibling"]


async def test_a_link_put_in_place_after_the_check_is_not_followed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = os.path.realpath

    def swapped_afterwards(path: Any, **how: Any) -> Any:
        real = resolve(path, **how)
        if str(path).endswith("b c.txt") and not (root / "inner").is_symlink():
            (root / "inner").rename(root / "moved")
            (root / "inner").symlink_to(root.parent / "evil")
        return real

    (root.parent / "evil").mkdir()
    (root.parent / "evil" / "b c.txt").write_bytes(b"secret")
    monkeypatch.setattr(os.path, "realpath", swapped_afterwards)
    await refusal("file:inner/b c.txt", root)
    assert (root / "inner").is_symlink()


async def test_links_in_a_circle_are_refused(root: Path) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    assert isinstance(await refusal("file:one", root), InvalidInput)


async def test_what_is_no_regular_file_is_refused(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(root)  # a socket's path is short
        try:
            listener.bind("socket")
        finally:
            os.chdir(Path(__file__).parents[3])
        for name in ("pipe", "socket", "inner", "inner/"):
            assert "no regular file" in (await refusal(f"file:{name}", root)).text
    assert "no regular file" in (await refusal("file:///dev/zero", Path("/dev"))).text
    assert "no regular file" in (await refusal(f"file://{root}", root)).text


@pytest.mark.parametrize("name", ["missing", "missing/a", "a.txt/b", "inner/missing"])
async def test_a_missing_file_is_refused(root: Path, name: str) -> None:
    error = await refusal(f"file:{name}", root)
    assert isinstance(error, InvalidInput)
    assert error.text == f"tensor 'reference': file:{name}: there is no such file"


async def test_a_name_that_is_too_long_is_refused(root: Path) -> None:
    assert "cannot be read" in (await refusal("file:" + "a" * 300, root)).text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_that_may_not_be_read_is_refused(root: Path) -> None:
    (root / "a.txt").chmod(0)
    assert "may not be read" in (await refusal("file:a.txt", root)).text


async def test_no_text_shows_where_a_relative_reference_leads(root: Path) -> None:
    (root / "out").symlink_to("../secret")
    for name in ("missing", "out", "inner", "a" * 300):
        assert str(root.parent) not in (await refusal(f"file:{name}", root)).text


async def test_a_large_file_is_refused(root: Path) -> None:
    assert await fetch("file:a.txt", roots=[root], max_bytes=5) == [b"first"]
    error = await refusal("file:a.txt", root, max_bytes=4)
    assert "more than the 4B" in error.text


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
async def test_a_file_that_states_no_size_is_read_within_the_bound() -> None:
    pid = os.getpid()
    assert b"Pid:" in (await fetch(f"file:///proc/{pid}/status", roots=[Path("/proc")]))[0]
    assert "more than the 10B" in (await refusal(f"file:///proc/{pid}/status", Path("/proc"), max_bytes=10)).text
    with pytest.raises(InvalidInput, match="more than the 10B"):  # and no more than that is ever held
        Roots([Path("/proc")], 10).read(FileReference(True, ("proc", str(pid), "status")))


async def test_all_rows_together_are_bounded(root: Path) -> None:
    given = ["file:a.txt", "file:inner/b c.txt", "file:a.txt"]
    assert len(await fetch(*given, roots=[root], max_total=16)) == 3
    with pytest.raises(InvalidInput, match="rows together are more than the 15B") as caught:
        await fetch(*given, roots=[root], max_total=15)
    assert (caught.value.tensor, caught.value.row) == ("reference", None)


async def test_the_number_of_rows_is_bounded(root: Path) -> None:
    assert len(await fetch(*["file:a.txt"] * 3, roots=[root], max_rows=3)) == 3
    with pytest.raises(InvalidInput, match="4 rows; at most 3"):
        await fetch(*["file:a.txt"] * 4, roots=[root], max_rows=3)


async def test_the_first_bad_row_is_named(root: Path) -> None:
    given = ["file:a.txt", "file:a.txt", "file:missing", "file:also/missing", "file:missing"]
    with pytest.raises(InvalidInput, match="row 2: tensor 'reference': file:missing") as caught:
        await fetch(*given, roots=[root])
    assert caught.value.row == 2


async def test_other_rows_are_fetched_all_the_same_where_somebody_has_a_use_for_them(root: Path) -> None:
    given = ["file:missing", "file:a.txt", "file:../secret", "file:missing", "file:a.txt"]
    async with Fetch(roots=[root]) as node:
        with pytest.raises(InvalidInput) as caught:
            await ask(node, *given, context=Context(partial=True))
    error = caught.value
    assert (error.row, error.text) == (0, "tensor 'reference': file:missing: there is no such file")
    partial = take_partial(error)
    assert partial is not None
    assert [(row, one.row) for row, one in partial.errors.items()] == [(0, 0), (2, 2), (3, 3)]
    assert partial.rows == [1, 4]
    assert partial.answer["data"].tolist() == [(root / "a.txt").read_bytes()] * 2


async def test_a_bound_on_all_rows_together_leaves_nothing_beside_the_error(root: Path) -> None:
    async with Fetch(roots=[root], max_total=15) as node:
        with pytest.raises(InvalidInput, match="rows together") as caught:
            await ask(node, *["file:a.txt"] * 5, context=Context(partial=True))
    assert take_partial(caught.value) is None


async def test_a_reference_that_cannot_be_read_is_named_before_any_file_is_opened(root: Path) -> None:
    with pytest.raises(InvalidInput, match=r"row 1: tensor 'reference': a file: reference has no '\.\.'"):
        await fetch("file:missing", "file:../secret", roots=[root])


async def test_schemes_that_nothing_allows_are_refused(root: Path) -> None:
    for reference, scheme in (("http://h/", "http"), ("https://h/", "https"), ("s3://pages/a", "s3")):
        assert isinstance(await refusal(reference, root), InvalidInput), scheme
    with pytest.raises(InvalidInput, match="references of file: are not taken"):
        await fetch("file:a.txt", hosts=["h"])


async def test_a_folder_that_is_missing_is_told_when_it_loads(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        with pytest.raises(SetupError, match=f"roots has .*{name}: there is no such folder"):
            await fetch("file:a", roots=[tmp_path / name])


def test_a_relative_root_counts_from_the_model_root(tmp_path: Path) -> None:
    roots = TypeAdapter(list[Root]).validate_json('["pages", "/data"]', context={"model_root": tmp_path})
    assert roots == [tmp_path / "pages", Path("/data")]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "nothing is allowed"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_total": 0}, "max_total"),
        ({"max_rows": 0}, "max_rows"),
        ({"max_redirects": -1}, "max_redirects"),
        ({"max_redirects": 21}, "max_redirects"),
        ({"timeout": 0.0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"concurrency": 0}, "concurrency"),
        ({"hosts": ["http://h"]}, "hosts"),
    ],
)
def test_arguments_out_of_range_are_refused(settings: dict[str, Any], named: str) -> None:
    allowed: dict[str, Any] = settings if not settings or "hosts" in settings else {"roots": [Path()], **settings}
    with pytest.raises(SetupError, match=named):
        Fetch(**allowed)


async def test_a_node_that_is_not_loaded_says_so(root: Path) -> None:
    with pytest.raises(RuntimeError, match="not loaded"):
        await ask(Fetch(roots=[root]), "file:a.txt")


async def test_unloaded_while_files_wait_it_is_unavailable(root: Path) -> None:
    async with Fetch(roots=[root], concurrency=1) as node:
        asked = [asyncio.create_task(ask(node, "file:a.txt", context=Context())) for _ in range(8)]
        await asyncio.sleep(0)
    for one in await asyncio.gather(*asked, return_exceptions=True):
        assert one == [b"first"] or isinstance(one, Unavailable | RuntimeError)
