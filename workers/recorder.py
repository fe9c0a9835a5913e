"""The one recorder of a worker: finished attempts meet here, are written together, and only then acknowledged."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

from shared.columns import TEXTS
from shared.domain import Finished, TaskStatus
from shared.errors import AitaskError, HintsUnavailable
from shared.kinds import ErrorKind, Outcome
from shared.store import work
from shared.store.engine import Database, UnstorableData
from shared.streams import HintReader
from shared.text import is_storable, storable
from workers.dbthread import DbThread
from workers.holdings import Holdings

log = logging.getLogger("aitask.recorder")

GATHER_S = 0.005
# Results that come this fast are a flood; written by the dozen they cost a tenth.
FLOOD = 4
GATHER_FLOOD_S = 0.02
MOST_ROWS = 200
MOST_BYTES = 8 << 20
# How soon a result is tried again whose row somebody else has locked.
LOCKED_RETRY_S = 0.25
# Rows one after another that take no result at all: then it is not the rows.
MOST_GIVEN_UP = 10
_RETRY_S = (0.1, 0.2, 0.5, 1.0)


class Recorder:
    """Writes what waits: up to 200 rows or 8 MiB in one statement, 5 ms after the first came, in a flood 25 ms."""

    def __init__(self, db: Database, hints: HintReader, holdings: Holdings) -> None:
        self._db = db
        self._hints = hints
        self._holdings = holdings
        self._thread = DbThread("aitask-record")
        self._waiting: asyncio.Queue[Finished] = asyncio.Queue()
        self._left_over: Finished | None = None
        self._in_hand: list[Finished] = []
        self._unwritten = 0
        self._given_up = 0
        self._written = asyncio.Event()
        self._written.set()

    def put(self, result: Finished) -> None:
        """Take a result. Its task stays held until it is written."""
        self._unwritten += 1
        self._written.clear()
        self._waiting.put_nowait(_storable(result))

    @property
    def unwritten(self) -> int:
        """Results that are not in the database yet."""
        return self._unwritten

    async def drained(self) -> None:
        """Wait until every result is written."""
        await self._written.wait()

    async def run(self) -> None:
        """Record for ever."""
        while True:
            # What a recorder that ended in an error had in hand comes first.
            self._in_hand = self._in_hand or await self._gather()
            await self._write(self._in_hand)
            self._unwritten -= len(self._in_hand)
            self._in_hand = []
            if self._unwritten == 0:
                self._written.set()

    async def _gather(self) -> list[Finished]:
        first = self._left_over or await self._waiting.get()
        self._left_over = None
        results, size = [first], first.text_bytes
        # A lone result has nobody to wait for.
        if len(self._holdings) > 1 and self._waiting.qsize() < MOST_ROWS - 1:
            await asyncio.sleep(GATHER_S)
            if FLOOD <= self._waiting.qsize() < MOST_ROWS - 1:
                await asyncio.sleep(GATHER_FLOOD_S)
        while len(results) < MOST_ROWS and not self._waiting.empty():
            result = self._waiting.get_nowait()
            size += result.text_bytes
            if size > MOST_BYTES:
                self._left_over = result
                break
            results.append(result)
        return results

    async def _write(self, results: list[Finished]) -> None:
        tries = 0
        while True:
            try:
                written = await self._thread.call(lambda: work.record(self._db, results))
                break
            except UnstorableData as error:
                await self._split(results, error)
                return
            except AitaskError as error:
                # PostgreSQL is away: the answers are kept, and repeating is safe, for the fence lets one through.
                if tries == 0:
                    log.warning("results wait for PostgreSQL: %s", error.message, extra={"waiting": self._unwritten})
                await asyncio.sleep(_RETRY_S[min(tries, len(_RETRY_S) - 1)])
                tries += 1
            except Exception as error:  # whatever one row brings about must not end more than that row
                await self._split(results, error)
                return
        self._given_up = 0
        if tries:
            log.info("PostgreSQL is back, results are recorded", extra={"recorded": len(written)})
        locked = await self._locked([result for result in results if result.id not in written])
        for result in locked:
            self._unwritten += 1
            asyncio.get_running_loop().call_later(LOCKED_RETRY_S, self._waiting.put_nowait, result)
        waiting = {(result.id, result.attempt) for result in locked}
        await self._acknowledge([r for r in results if (r.id, r.attempt) not in waiting], written)

    async def _locked(self, missing: list[Finished]) -> list[Finished]:
        """Those of the unwritten that are not stale: somebody else has their rows locked, and they are tried again."""
        if not missing:
            return []
        fences = [(result.id, result.attempt) for result in missing]
        try:
            held = await self._thread.call(lambda: work.still_held(self._db, fences))
        except AitaskError:
            return missing
        return [result for result in missing if result.id in held]

    async def _split(self, results: list[Finished], error: Exception) -> None:
        """Find the row that can't be recorded: it fails by itself and holds up no other."""
        if len(results) > 1:
            middle = len(results) // 2
            await self._write(results[:middle])
            await self._write(results[middle:])
            return
        result = results[0]
        if result.outcome == Outcome.UNSTORABLE:
            await self._give_up(result, error)
            return
        log.error("an answer can't be stored: %s", _said(error), extra={"task_id": result.id}, exc_info=_trace(error))
        refused = Finished(
            id=result.id, attempt=result.attempt, status=TaskStatus.FAILED, outcome=Outcome.UNSTORABLE,
            error_kind=ErrorKind.UNSTORABLE, error_msg="the answer can't be stored", http_status=result.http_status,
        )  # fmt: skip
        await self._write([refused])

    async def _give_up(self, result: Finished, error: Exception) -> None:
        """Let go of a row that takes nothing, not even its failure: its lease runs out, the others go on.

        Raises:
            Exception: it is not the row: none in a row could be recorded, so the worker must not go on.
        """
        self._given_up += 1
        if self._given_up >= MOST_GIVEN_UP:
            raise error
        log.error("a row takes no result: %s", _said(error), extra={"task_id": result.id}, exc_info=_trace(error))
        holding = self._holdings.remove((result.id, result.attempt))
        try:
            await self._hints.discard([holding.hint] if holding is not None and holding.hint is not None else [])
        except HintsUnavailable:
            log.debug("a hint could not be acknowledged")

    async def _acknowledge(self, results: list[Finished], written: set[str]) -> None:
        hints, resend = [], []
        for result in results:
            holding = self._holdings.remove((result.id, result.attempt))
            if result.id not in written:
                log.warning("a stale result was not recorded", extra={"task_id": result.id, "attempt": result.attempt})
            elif holding is not None and result.status is TaskStatus.PENDING and result.run_in_s == 0:
                resend.append((holding.task.family, result.id))
            if holding is not None and holding.hint is not None:
                hints.append(holding.hint)
        try:
            await self._hints.discard(hints, resend=resend)
        except HintsUnavailable:
            # The entries stay pending; whoever takes them over finds their rows done and drops them.
            log.debug("hints could not be acknowledged", extra={"hints": len(hints)})


def _said(error: Exception) -> str:
    return error.message if isinstance(error, AitaskError) else repr(error)


def _trace(error: Exception) -> Exception | None:
    """An expected error needs no trace; a bug keeps its own."""
    return None if isinstance(error, AitaskError) else error


def _storable(result: Finished) -> Finished:
    """Make every text one that PostgreSQL takes."""
    texts: dict[str, Any] = {}
    for name in TEXTS:
        said = getattr(result, name)
        if said is not None and not is_storable(said):
            texts[name] = storable(said)
    return replace(result, **texts) if texts else result
