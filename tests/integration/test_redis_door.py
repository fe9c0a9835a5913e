"""Whatever breaks under redis-py comes out as HintsUnavailable, and the next call is served."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from aitask_cli.local.valkey import wheel_binary
from shared.errors import HintsUnavailable, UsageFault
from shared.ids import new_ordered_id
from shared.live import LivePublisher, LiveTail
from shared.streams import Hint, HintReader, Streams
from tests.proxy import Proxy, Target
from tests.redis_servers import valkeys
from tests.stand import Stand, wait_for


def on_uvloop(run: Callable[[], Awaitable[None]]) -> None:
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()


def close_transports(client: Any) -> None:
    """What a reset does between two commands: the transport is closed and the connection does not know it."""
    for connection in client.connection_pool._available_connections:
        if connection._writer is not None:
            connection._writer.transport.abort()


def test_a_transport_that_is_closed_ends_no_reader(stand: Stand) -> None:
    async def run() -> None:
        reader = HintReader(stand.settings.redis_dsn, namespace=stand.namespace, consumer="c", block_s=0.05)
        await reader.ensure_groups(["qwen"])
        for _ in range(3):
            close_transports(reader._writing.first)
            try:
                await reader.take_over("qwen", idle_s=1, cursor="0-0", most=1)
            except HintsUnavailable:
                pass
        assert await reader.take_over("qwen", idle_s=1, cursor="0-0", most=1) == ("0-0", [])
        await reader.close()

    on_uvloop(run)


def test_resets_at_any_moment_over_tcp_are_redis_away_and_nothing_else(tmp_path: Path) -> None:
    """Half of them come between two commands; uvloop then says that the handler is closed."""
    with valkeys(tmp_path) as servers, Proxy(Target(port=servers.start())) as proxy:
        over = threading.Event()

        def cut() -> None:
            while not over.wait(0.003):
                proxy.strike("refused")
                proxy.heal()

        async def ask() -> tuple[int, int]:
            url = f"redis://127.0.0.1:{proxy.port}"
            reader = HintReader(url, namespace="n", consumer="c", block_s=0.01)
            served = refused = 0
            while (served < 150 or refused < 60) and served + refused < 20_000:
                try:
                    await reader.ensure_groups(["qwen"])
                    await reader.discard([], resend=[("qwen", "x" * 100_000)])
                    served += 1
                except HintsUnavailable:
                    refused += 1
            await reader.close()
            return served, refused

        cutting = threading.Thread(target=cut)
        cutting.start()
        try:
            served, refused = uvloop.run(ask())
        finally:
            over.set()
            cutting.join()
        assert served >= 150
        assert refused >= 60


@pytest.mark.parametrize(
    "raised", [RuntimeError("the handler is closed"), AttributeError("writelines"), UnicodeError("idna")], ids=repr
)
def test_whatever_a_transport_raises_is_redis_away(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    from redis.asyncio import connection

    def broken(self: Any, *args: Any, **more: Any) -> Any:
        raise raised

    async def run() -> None:
        reader = HintReader(stand.settings.redis_dsn, namespace=stand.namespace, consumer="c", block_s=0.05)
        live = LivePublisher(stand.settings.redis_dsn, namespace=stand.namespace)
        tail = LiveTail(stand.settings.redis_dsn, namespace=stand.namespace)
        await reader.ensure_groups(["qwen"])
        # Connected before it breaks: what fails while connecting redis-py translates itself.
        assert await reader.read(["qwen"], each=1) == []
        assert await tail.read({("t", 1): "0"}) == []
        with monkeypatch.context() as patch:
            patch.setattr(connection.AbstractConnection, "_send_packed_command", broken)
            with pytest.raises(HintsUnavailable):
                await reader.read(["qwen"], each=1)
            assert await tail.read({("t", 1): "0"}) == []
            live.open("t", 1).piece("x", reasoning=False)
            await live._flush()
        assert await reader.read(["qwen"], each=1) == []
        for part in (reader, live, tail):
            await part.close()

    on_uvloop(run)


def test_a_live_stream_has_an_expiry_also_after_a_flush_in_mid_answer(stand: Stand) -> None:
    async def run() -> None:
        live = LivePublisher(stand.settings.redis_dsn, namespace=stand.namespace)
        feed = live.open("t", 1)
        with stand.streams() as streams:
            for _ in range(2):
                feed.piece("x", reasoning=False)
                await live._flush()
                assert streams.client.ttl(streams.keys.live("t", 1)) > 0
                streams.client.delete(streams.keys.live("t", 1))
        await live.close()

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["string", "list", "full"])
def test_an_entry_is_buried_or_left_whole_whatever_the_dead_letters_are(stand: Stand, kind: str) -> None:
    with stand.streams() as streams:
        key = streams.keys.dead_letters
        if kind == "string":
            streams.client.set(key, "another's")
        elif kind == "list":
            streams.client.rpush(key, "another's")
        else:
            streams.client.xadd(key, {"a": "b"}, id=f"{2**64 - 1}-{2**64 - 1}")
        streams.client.xadd(streams.keys.tasks("qwen"), {"junk": "x"})

        async def run() -> list[Hint]:
            reader = HintReader(stand.settings.redis_dsn, namespace=stand.namespace, consumer="c", block_s=0.05)
            await reader.ensure_groups(["qwen"])
            hints = await reader.read(["qwen"], each=1)
            with pytest.raises(HintsUnavailable):
                await reader.bury(hints, reason="names no task")
            await reader.close()
            return hints

        [hint] = asyncio.run(run())
        [(_, fields)] = streams.client.xrange(streams.keys.tasks("qwen"))
        assert fields == {b"junk": b"x"}
        assert [entry.entry_id for entry in streams.pending("qwen")] == [hint.entry_id]


def test_workers_that_bury_at_once_leave_nothing_behind(stand: Stand) -> None:
    with stand.streams() as streams:
        for number in range(30):
            streams.client.xadd(streams.keys.tasks("qwen"), {"junk": str(number)})

        async def bury(consumer: str) -> None:
            dsn = stand.settings.redis_dsn
            reader = HintReader(dsn, namespace=stand.namespace, consumer=consumer, block_s=0.05)
            while hints := await reader.read(["qwen"], each=1):
                await reader.bury(hints, reason="names no task")
            await reader.close()

        async def run() -> None:
            await asyncio.gather(bury("one"), bury("two"))

        streams.ensure_group("qwen")
        asyncio.run(run())
        assert len(streams.dead_letters()) == 30
        assert streams.pending("qwen") == []


def test_a_dead_letter_goes_back_to_a_task_stream_of_ours_only(stand: Stand) -> None:
    with stand.streams() as streams:
        victim = f"{stand.namespace}:victim"
        ours = streams.keys.tasks("qwen")
        for stream in (victim, ours):
            streams.client.xadd(streams.keys.dead_letters, {"stream": stream, "entry": "1-0", "field:junk": "x"})
        theirs, own = streams.dead_letters()
        with pytest.raises(UsageFault, match="victim"):
            streams.retry_dead_letter(theirs)
        assert not streams.client.exists(victim)
        refused = stand.aitask("dlq", "retry", theirs.id)
        assert (refused.code, "no task stream of ours" in refused.err) == (2, True)
        streams.retry_dead_letter(own)
        assert streams.client.xlen(ours) == 1
        assert streams.dead_letters() == [theirs]


def test_a_backlog_behind_a_future_id_is_not_sent_again(stand: Stand) -> None:
    with stand.streams() as streams:
        streams.ensure_group("qwen")
        streams.client.xadd(streams.keys.tasks("qwen"), {"task": "x"}, id=f"{2**62}-0")
        streams.send([("qwen", new_ordered_id())])
        mark = streams.watermark("qwen")
        assert mark is not None
        assert mark.safe_until.timestamp() == 0


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        server = subprocess.Popen(
            [str(wheel_binary()), *arguments, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL, cwd=tmp_path
        )
        running.append(server)
        return server

    yield start
    for server in running:
        server.kill()
        server.wait(10)


def answers(url: str) -> bool:
    streams = Streams(url, namespace="n")
    try:
        streams.ping()
    except HintsUnavailable:
        return False
    finally:
        streams.close()
    return True


def test_after_a_fail_over_sentinel_is_asked_again(
    tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]
) -> None:
    one, two, asked = free_port(), free_port(), free_port()
    common = ("--bind", "127.0.0.1", "--save", "")
    first = started("--port", str(one), *common)
    started("--port", str(two), *common, "--replicaof", "127.0.0.1", str(one), "--repl-diskless-sync-delay", "0")
    wait_for(lambda: answers(f"redis://127.0.0.1:{one}") and answers(f"redis://127.0.0.1:{two}"), what="both servers")
    conf = tmp_path / "sentinel.conf"
    conf.write_text(
        f"port {asked}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {one} 1\n"
        "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
    )
    started(str(conf), "--sentinel")
    url = f"redis+sentinel://127.0.0.1:{asked}/main"
    wait_for(lambda: answers(url), what="Sentinel")
    replica = Streams(f"redis://127.0.0.1:{two}", namespace="n")
    wait_for(lambda: b"slave" in replica.client.role() and b"connected" in replica.client.role(), what="replication")
    with pytest.raises(HintsUnavailable, match="replica"):
        replica.send([("qwen", new_ordered_id())])
    streams = Streams(url, namespace="n")
    streams.send([("qwen", new_ordered_id())])
    sentinel = Streams(f"redis://127.0.0.1:{asked}", namespace="n")
    wait_for(lambda: sentinel.client.sentinel_slaves("main"), what="the replica's being known")

    async def go_on() -> None:
        reader = HintReader(url, namespace="n", consumer="c", block_s=0.05)
        await reader.ensure_groups(["qwen"])
        first.kill()
        refused = 0
        for _ in range(400):
            try:
                streams.send([("qwen", new_ordered_id())])
                await reader.ensure_groups(["qwen"])
                hints = await reader.read(["qwen"], each=10)
                break
            except HintsUnavailable:
                refused += 1
                await asyncio.sleep(0.05)
        assert refused > 0
        assert hints
        await reader.close()

    on_uvloop(go_on)
    assert wait_for(lambda: b"master" in replica.client.role(), what="the promotion")
    for opened in (replica, streams, sentinel):
        opened.close()
