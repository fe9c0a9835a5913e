"""The task streams on a real Valkey."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from shared.errors import HintsUnavailable
from shared.ids import new_ordered_id
from shared.live import LivePublisher, LiveReader
from shared.streams import Hint, HintReader, Streams, group_gone
from tests.stand import Stand, wait_for

T = TypeVar("T")


@pytest.fixture
def streams(stand: Stand) -> Iterator[Streams]:
    with stand.streams() as opened:
        yield opened


def with_reader(stand: Stand, use: Callable[[HintReader], Awaitable[T]], consumer: str = "c") -> T:
    async def run() -> T:
        reader = HintReader(stand.settings.redis_dsn, namespace=stand.namespace, consumer=consumer, block_s=0.05)
        try:
            return await use(reader)
        finally:
            await reader.close()

    return asyncio.run(run())


def pending(streams: Streams, family: str) -> int:
    return int(streams.client.xpending(f"{streams.namespace}:tasks:{family}", streams.namespace)["pending"])


def length(streams: Streams, family: str) -> int:
    return int(streams.client.xlen(f"{streams.namespace}:tasks:{family}"))


def test_hints_sent_before_the_group_exists_are_read(stand: Stand, streams: Streams) -> None:
    ids = [new_ordered_id() for _ in range(3)]
    streams.send([("qwen", ids[0]), ("gemini", ids[1]), ("qwen", ids[2])])

    async def use(reader: HintReader) -> list[Hint]:
        await reader.ensure_groups(["qwen", "gemini"])
        return await reader.read(["qwen", "gemini"], each=10)

    hints = with_reader(stand, use)
    assert sorted(hint.task_id or "" for hint in hints) == sorted(ids)
    assert {hint.family for hint in hints} == {"qwen", "gemini"}


def test_no_more_entries_are_read_than_asked_for(stand: Stand, streams: Streams) -> None:
    streams.send([("qwen", new_ordered_id()) for _ in range(10)])

    async def use(reader: HintReader) -> int:
        await reader.ensure_groups(["qwen"])
        return len(await reader.read(["qwen"], each=3))

    assert with_reader(stand, use) == 3
    assert pending(streams, "qwen") == 3


def test_a_discarded_entry_leaves_neither_stream_nor_pending_entries(stand: Stand, streams: Streams) -> None:
    streams.send([("qwen", new_ordered_id())])

    async def use(reader: HintReader) -> None:
        await reader.ensure_groups(["qwen"])
        await reader.discard(await reader.read(["qwen"], each=1), resend=[("qwen", new_ordered_id())])

    with_reader(stand, use)
    assert (length(streams, "qwen"), pending(streams, "qwen")) == (1, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"task": "not-an-id"},
        {"other": "x"},
        {"task": b"\xff\xfe"},
        {"task": new_ordered_id(), "more": "x"},
        {"task": ""},
    ],
)
def test_an_entry_that_names_no_task_is_buried_whole(
    stand: Stand, streams: Streams, fields: dict[str, str | bytes]
) -> None:
    streams.client.xadd(f"{stand.namespace}:tasks:qwen", fields)

    async def use(reader: HintReader) -> list[Hint]:
        await reader.ensure_groups(["qwen"])
        hints = await reader.read(["qwen"], each=1)
        await reader.bury(hints, reason="names no task")
        return hints

    assert with_reader(stand, use)[0].task_id is None
    assert (length(streams, "qwen"), pending(streams, "qwen")) == (0, 0)
    [(_, letter)] = streams.client.xrange(f"{stand.namespace}:sys_dead_letters")
    for name, value in fields.items():
        assert letter[f"field:{name}".encode()] == (value.encode() if isinstance(value, str) else value)


def test_a_missing_group_is_told_from_a_missing_redis(stand: Stand) -> None:
    async def use(reader: HintReader) -> None:
        await reader.read(["qwen"], each=1)

    with pytest.raises(HintsUnavailable) as caught:
        with_reader(stand, use)
    assert group_gone(caught.value)
    away = Streams("redis://:hunter2@127.0.0.1:1/0", namespace="x", timeout_s=0.2)
    with pytest.raises(HintsUnavailable) as unreachable:
        away.ping()
    assert not group_gone(unreachable.value)
    assert "hunter2" not in str(unreachable.value)


def test_entries_of_a_dead_consumer_are_taken_over_with_the_cursor_carried_on(stand: Stand, streams: Streams) -> None:
    streams.send([("qwen", new_ordered_id()) for _ in range(5)])

    async def die(reader: HintReader) -> None:
        await reader.ensure_groups(["qwen"])
        await reader.read(["qwen"], each=5)

    with_reader(stand, die, "dead")

    async def take(reader: HintReader) -> list[Hint]:
        cursor, first = await reader.take_over("qwen", idle_s=0, cursor="0-0", most=2)
        _, second = await reader.take_over("qwen", idle_s=0, cursor=cursor, most=10)
        return first + second

    assert len({hint.entry_id for hint in with_reader(stand, take, "heir")}) == 5


def test_idle_time_is_renewed_only_for_entries_still_owned(stand: Stand, streams: Streams) -> None:
    streams.send([("qwen", new_ordered_id()) for _ in range(2)])
    owners: dict[str, str] = {}

    async def read(reader: HintReader) -> None:
        await reader.ensure_groups(["qwen"])
        for hint in await reader.read(["qwen"], each=1):
            owners[reader.consumer] = hint.entry_id

    with_reader(stand, read, "one")
    with_reader(stand, read, "two")
    streams.renew("qwen", "one", list(owners.values()))
    found = streams.client.xpending_range(f"{stand.namespace}:tasks:qwen", stand.namespace, "-", "+", 10)
    assert {row["consumer"].decode(): row["message_id"].decode() for row in found} == owners


def test_the_watermark_stands_at_the_first_undelivered_entry(stand: Stand, streams: Streams) -> None:
    assert streams.watermark("qwen") is None
    assert streams.ensure_group("qwen")
    assert not streams.ensure_group("qwen")
    empty = streams.watermark("qwen")
    assert empty is not None
    assert empty.safe_until == empty.redis_now
    streams.client.xadd(f"{stand.namespace}:tasks:qwen", {"task": "x"}, id="1000000-0")
    waiting = streams.watermark("qwen")
    assert waiting is not None
    assert waiting.safe_until == dt.datetime.fromtimestamp(1000, dt.timezone.utc)
    streams.client.xadd(f"{stand.namespace}:tasks:gemini", {"task": "x"}, id="18446744073709551614-0")
    streams.ensure_group("gemini")
    ahead = streams.watermark("gemini")
    assert ahead is not None
    assert ahead.safe_until <= ahead.redis_now


def test_live_output_is_replayed_from_the_start_and_keeps_its_kinds(stand: Stand) -> None:
    async def publish() -> None:
        live = LivePublisher(stand.settings.redis_dsn, namespace=stand.namespace)
        flushing = asyncio.create_task(live.run())
        feed = live.open("t", 1)
        for number in range(50):
            feed.piece(f"{number} ", reasoning=number < 10)
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.2)
        live.end(feed)
        await asyncio.sleep(0.2)
        flushing.cancel()
        await live.close()

    asyncio.run(publish())
    reader = LiveReader(stand.settings.redis_dsn, namespace=stand.namespace)
    pieces = reader.read([("t", 1)], block_s=0.1) or []
    assert "".join(p.text for p in pieces) == "".join(f"{n} " for n in range(50))
    assert "".join(p.text for p in pieces if p.reasoning) == "".join(f"{n} " for n in range(10))
    assert len(pieces) < 30, "pieces are sent together"
    reader.close()


def test_live_output_keeps_the_tail_of_what_is_too_long(stand: Stand) -> None:
    async def publish() -> None:
        live = LivePublisher(stand.settings.redis_dsn, namespace=stand.namespace)
        flushing = asyncio.create_task(live.run())
        feed = live.open("t", 1)
        for number in range(40):
            feed.piece(chr(65 + number % 26) * 65_536, reasoning=False)
            await asyncio.sleep(0.02)
        feed.piece("THE END", reasoning=False)
        await asyncio.sleep(0.3)
        flushing.cancel()
        await live.close()

    asyncio.run(publish())
    reader = LiveReader(stand.settings.redis_dsn, namespace=stand.namespace)
    text = "".join(p.text for p in wait_for(lambda: reader.read([("t", 1)], block_s=0.1)))
    assert text.endswith("THE END")
    assert len(text) <= 1 << 20
    reader.close()


def test_no_hints_need_no_redis_and_some_say_that_it_is_away() -> None:
    away = Streams("redis://127.0.0.1:9", namespace="n")
    away.send([])
    with pytest.raises(HintsUnavailable):
        away.send([("qwen", new_ordered_id())])
