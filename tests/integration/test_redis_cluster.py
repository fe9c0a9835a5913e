"""A Cluster is a Redis as any other: hints, recovery, dead letters and live output, also while a slot moves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from shared.ids import new_ordered_id
from shared.live import LivePublisher, LiveReader, LiveTail
from shared.streams import HintReader, Streams
from tests.redis_servers import Valkeys, valkeys

FAMILIES = ["gemini", "qwen", "deepseek"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Valkeys, list[int]]]:
    with valkeys(tmp_path_factory.mktemp("cluster")) as made:
        yield made, made.cluster()


@pytest.fixture(params=["redis", "redis+cluster"])
def url(request: pytest.FixtureRequest, cluster: tuple[Valkeys, list[int]]) -> str:
    """Said, and found out from the URL of one node."""
    return f"{request.param}://127.0.0.1:{cluster[1][1]}"


def test_hints_go_in_and_out_of_every_familys_node(url: str, request: pytest.FixtureRequest) -> None:
    streams = Streams(url, namespace=request.node.name)
    sent = {(family, new_ordered_id()) for family in FAMILIES for _ in range(3)}
    assert {key_slot(streams.keys.tasks(family).encode()) // 5462 for family in FAMILIES} != {0}
    assert streams.keys.tasks("qwen").endswith("{qwen}")

    async def run() -> None:
        reader = HintReader(url, namespace=streams.namespace, consumer="c", block_s=0.1)
        await reader.ensure_groups(FAMILIES)
        streams.send(sent)
        hints = await reader.read(FAMILIES, each=3)
        assert {(hint.family, hint.task_id) for hint in hints} == sent
        assert await reader.read(FAMILIES, each=3) == []
        for family in FAMILIES:
            assert len(streams.pending(family)) == 3
            assert (await reader.take_over(family, idle_s=0, cursor="0-0", most=9))[1] != []
            assert streams.watermark(family) is not None
        await reader.discard(hints, resend=[("qwen", new_ordered_id())])
        assert [streams.pending(family) for family in FAMILIES] == [[], [], []]
        assert [hint.family for hint in await reader.read(FAMILIES, each=3)] == ["qwen"]
        await reader.close()

    asyncio.run(run())
    streams.close()


def test_junk_of_every_family_is_buried_whole(url: str, request: pytest.FixtureRequest) -> None:
    streams = Streams(url, namespace=request.node.name)

    async def run() -> None:
        reader = HintReader(url, namespace=streams.namespace, consumer="c", block_s=0.1)
        await reader.ensure_groups(FAMILIES)
        for family in FAMILIES:
            with streams.at(streams.keys.tasks(family)) as client:
                client.xadd(streams.keys.tasks(family), {"junk": family})
        await reader.bury(await reader.read(FAMILIES, each=3), reason="names no task")
        await reader.close()

    asyncio.run(run())
    assert {letter.fields[b"junk"].decode() for letter in streams.dead_letters()} == set(FAMILIES)
    assert [streams.pending(family) for family in FAMILIES] == [[], [], []]
    streams.retry_dead_letter(streams.dead_letters()[0])
    assert len(streams.dead_letters()) == 2
    streams.close()


def test_live_output_of_tasks_on_several_nodes_arrives(url: str, request: pytest.FixtureRequest) -> None:
    tasks = [(new_ordered_id(), 1) for _ in range(6)]
    watcher = LiveReader(url, namespace=request.node.name)

    async def run() -> None:
        live = LivePublisher(url, namespace=request.node.name)
        tail = LiveTail(url, namespace=request.node.name)
        for task in tasks:
            live.open(*task).piece("x", reasoning=False)
        await live._flush()
        seen = await tail.read(dict.fromkeys(tasks, "0"))
        assert {(piece.task_id, piece.text) for _, piece in seen} == {(task, "x") for task, _ in tasks}
        await live.close()
        await tail.close()

    asyncio.run(run())
    assert {piece.task_id for piece in watcher.read(tasks, block_s=0.1) or []} == {task for task, _ in tasks}
    watcher.close()


def test_a_slot_that_moves_is_followed(
    url: str, request: pytest.FixtureRequest, cluster: tuple[Valkeys, list[int]]
) -> None:
    streams = Streams(url, namespace=request.node.name)
    slot = key_slot(streams.keys.tasks("qwen").encode())

    async def run() -> None:
        reader = HintReader(url, namespace=streams.namespace, consumer="c", block_s=0.1)
        await reader.ensure_groups(FAMILIES)
        streams.send([("qwen", new_ordered_id())])
        [hint] = await reader.read(FAMILIES, each=1)
        with streams.at(streams.keys.tasks("qwen")) as client:
            source = client.connection_pool.connection_kwargs["port"]
        target = next(port for port in cluster[1] if port != source)
        cluster[0].move_slot(slot, source, target)
        await reader.discard([hint])
        streams.send([("qwen", new_ordered_id())])
        assert [hint.family for hint in await _read(reader)] == ["qwen"]
        await reader.close()

    asyncio.run(run())
    assert len(streams.pending("qwen")) == 1
    streams.close()


async def _read(reader: HintReader) -> list[object]:
    from shared.errors import HintsUnavailable

    try:
        return list(await reader.read(FAMILIES, each=1))
    except HintsUnavailable:
        # The old node's word that the slot has gone: the next read knows.
        return list(await reader.read(FAMILIES, each=1))
