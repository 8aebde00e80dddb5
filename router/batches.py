"""What BatchGetItem and BatchWriteItem have in common: several tables, many small requests, one answer.

A batch is no unit: each of its keys is read or written by itself, in parallel, and ends by itself. What could
not be done for now is given back to the client, who sends it again; only when nothing at all could be done, or
the client asked for something wrong, does the batch as a whole end with the error.

Everything here is callbacks on the loop's thread: a batch has no task, and what it sends in one turn of the
loop leaves in one write per storage node.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from datamodel.errors import DynamoDBError
from datamodel.table_descriptions import table_name_of
from proto.client_groups import GroupRequest
from proto.messages import Answer, Write, WrongPartition
from router.context import Call, error_of
from router.partition_map import TableEntry

DUPLICATE_KEYS = "Provided list of item keys contains duplicates"

OnPart: TypeAlias = Callable[[TableEntry, "Answer | DynamoDBError"], None]


def with_tables(
    call: Call, references: Sequence[str], run: Callable[[list[TableEntry]], None]
) -> None:
    """Go on with the tables behind names or ARNs, in their order; fail if one of them does not serve items."""
    services = call.services
    names = [table_name_of(text, services.region, services.account_id) for text in references]
    _gather(call, names, [], run)


def _gather(
    call: Call,
    names: Sequence[str],
    entries: list[TableEntry],
    run: Callable[[list[TableEntry]], None],
) -> None:
    for name in names[len(entries) :]:
        entry = call.services.tables.get(name)
        if entry is None:
            call.with_table(name, lambda found: _gather(call, names, [*entries, found], run))
            return
        entries.append(entry)
    run(entries)


class Part:
    """One request of a batch to one partition, asked again on a newer map as `Call.ask` does."""

    __slots__ = ("_call", "_done", "_entry", "_is_repeated_write", "_leader", "_make")

    def __init__(
        self,
        call: Call,
        entry: TableEntry,
        make: Callable[[TableEntry], GroupRequest],
        done: OnPart,
        leader: bool = True,
    ) -> None:
        """Prepare; arguments as of `Call.ask`, save that `done` takes failures too, exactly once in all."""
        self._call = call
        self._entry = entry
        self._make = make
        self._done = done
        self._leader = leader
        self._is_repeated_write = False

    def send(self) -> None:
        """Ask. The answer may come before this returns."""
        call = self._call
        call.services.client.call(
            self._make(self._entry), self._answered, call.deadline, self._leader
        )

    def _answered(self, answer: Answer) -> None:
        if isinstance(answer, WrongPartition):
            self._call.services.tables.refresh(self._entry, self._ask_again)
            return
        self._end(error_of(answer, is_repeated_write=self._is_repeated_write) or answer)

    def _ask_again(self, found: TableEntry | DynamoDBError) -> None:
        if isinstance(found, DynamoDBError):
            self._end(found)
            return
        self._entry = found
        try:
            request = self._make(found)
        except DynamoDBError as error:
            self._end(error)
            return
        self._is_repeated_write = isinstance(request, Write)
        call = self._call
        call.services.client.call(request, self._answered, call.deadline, self._leader)

    def _end(self, outcome: Answer | DynamoDBError) -> None:
        call = self._call
        if not call.is_open:
            return  # another part ended the batch
        try:
            self._done(self._entry, outcome)
        except DynamoDBError as error:
            if call.is_open:
                call.fail(error)
        except Exception:  # noqa: BLE001 - logged there; the client must get its reply
            call.fail_internally()
