"""What a write does to a partition: the pure part of the leader's work.

`evaluate` takes the actions of one `Write` and a function that reads items, and returns an `Effect` (what
changes, what the answer carries) or a `Refusal` (a DynamoDB exception). It has no clock, no I/O and no memory.

All actions see the state before the write; none sees another's effect, which is why no two may touch one item.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from datamodel.attribute_values import equal
from datamodel.errors import DynamoDBError, ValidationError
from datamodel.expressions import read_condition, read_update
from datamodel.items import check_updated_item, decode_item, encode_item
from datamodel.limits import ITEM_SIZE_BYTES_MAX
from proto.messages import (
    CHECK,
    DELETE,
    PUT,
    RETURN_ALL_NEW,
    RETURN_ALL_OLD,
    RETURN_NONE,
    RETURN_UPDATED_NEW,
    RETURN_UPDATED_OLD,
    Action,
    ActionResult,
    Reason,
)
from storagenode.replicas.indexing import Indexing, Reader
from storagenode.replicas.indexing import Stored as Stored
from storagenode.replicas.log_entries import Images, ItemMutation

PUT_TOO_LARGE: Final = "Item size has exceeded the maximum allowed size"
SAME_ITEM_TWICE: Final = "Transaction request cannot include multiple operations on one item"
NO_ACTIONS: Final = "A write must have at least one action"

# Codes of exceptions inside a TransactionCanceledException's reasons.
_REASON_CODES: Final = {
    "ConditionalCheckFailedException": "ConditionalCheckFailed",
    "ItemCollectionSizeLimitExceededException": "ItemCollectionSizeLimitExceeded",
    "ValidationException": "ValidationError",
}


@dataclass(slots=True)
class Effect:
    """What a write does: empty `mutations` mean that it changes nothing."""

    mutations: list[ItemMutation]
    results: list[ActionResult]
    images: list[Images]
    item_count_delta: int
    size_bytes_delta: int
    index_deltas: list[int] | None = None
    """Changes of count and bytes of the entries of each local index in turn."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A write that is not done: the exception's name, its text, and a reason for each action."""

    code: str
    message: str
    reasons: list[Reason]


def evaluate(
    actions: Sequence[Action],
    read: Reader,
    *,
    keep_images: bool,
    indexing: Indexing | None = None,
) -> Effect | Refusal:
    """Decide what `actions` do to the items that `read` returns, all or nothing.

    Args:
        actions: Each for another item.
        read: The current item of a keyspace key, None if there is none.
        keep_images: Whether the change feed wants to know; images are left out for a write that changes nothing
            (deep-equal items), as DynamoDB Streams does.
        indexing: Of this write, in a table that has local indexes: what it does to them becomes part of the
            effect.

    Returns:
        The effect, or why not: with one action the exception itself, with its reason first in `reasons`;
        with several a TransactionCanceledException with a reason per action.
    """
    effect = Effect([], [], [], 0, 0)
    if len(actions) == 1:
        reason = _act(actions[0], read(actions[0].key), effect, keep_images, indexing)
        if reason is not None:
            return Refusal(reason.code, reason.message, [reason])
        if indexing is not None:
            _finish_indexing(effect, indexing)
        return effect
    if not actions:
        return Refusal("ValidationException", NO_ACTIONS, [])
    if len({action.key for action in actions}) != len(actions):
        return Refusal("ValidationException", SAME_ITEM_TWICE, [])
    reasons: list[Reason] = []
    failed = False
    for action in actions:
        reason = _act(action, read(action.key), effect, keep_images, indexing)
        if reason is None:
            reasons.append(Reason("None"))
        else:
            failed = True
            code = _REASON_CODES.get(reason.code, reason.code)
            reasons.append(Reason(code, reason.message, reason.item, reason.old_size))
    if not failed:
        if indexing is not None:
            _finish_indexing(effect, indexing)
        return effect
    codes = ", ".join(reason.code for reason in reasons)
    message = (
        f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
    )
    return Refusal("TransactionCanceledException", message, reasons)


def _finish_indexing(effect: Effect, indexing: Indexing) -> None:
    effect.mutations += indexing.mutations()
    effect.index_deltas = indexing.deltas


def _act(
    action: Action,
    stored: Stored | None,
    effect: Effect,
    keep_images: bool,
    indexing: Indexing | None,
) -> Reason | None:
    """Add one action's part to `effect`; or leave it alone and say why."""
    if stored is None:
        old_body, old_size = None, 0
    else:
        old_body, old_size = stored
    kind = action.kind
    attributes: bytes | None = None
    try:
        if kind == PUT and action.condition is None:
            # The common write: nothing to decode.
            new_body: bytes | None = action.body
            new_size = action.size
            if new_size > ITEM_SIZE_BYTES_MAX:
                raise ValidationError(PUT_TOO_LARGE)
            if action.returns == RETURN_ALL_OLD:
                attributes = old_body
        else:
            item = None if old_body is None else decode_item(old_body)
            values = {} if action.values is None else decode_item(action.values)
            condition = action.condition
            if condition is not None and not read_condition(condition, action.names).evaluate(
                item, values
            ):
                return Reason(
                    "ConditionalCheckFailedException",
                    "The conditional request failed",
                    old_body if action.return_on_failure else None,
                    old_size,
                )
            if kind == CHECK:
                effect.results.append(ActionResult(old_size, old_size))
                return None
            if kind == PUT:
                new_body, new_size = action.body, action.size
                if new_size > ITEM_SIZE_BYTES_MAX:
                    raise ValidationError(PUT_TOO_LARGE)
                if action.returns == RETURN_ALL_OLD:
                    attributes = old_body
            elif kind == DELETE:
                new_body, new_size = None, 0
                if action.returns == RETURN_ALL_OLD:
                    attributes = old_body
            else:
                key = decode_item(action.body)
                before = key if item is None else item
                returns = action.returns
                if action.update is None:
                    after = before
                    changed = None
                else:
                    update = read_update(action.update, action.names)
                    if item is None and not update.creates_item:
                        effect.results.append(ActionResult(0, 0))
                        return None
                    changed = update.apply(before, values, key, item_exists=item is not None)
                    after = changed.item
                new_size = check_updated_item(after)
                new_body = encode_item(after)
                if returns != RETURN_NONE:
                    if returns == RETURN_ALL_OLD:
                        attributes = old_body
                    elif returns == RETURN_ALL_NEW:
                        attributes = new_body
                    elif changed is not None:
                        part = None
                        if returns == RETURN_UPDATED_NEW:
                            part = changed.updated_new()
                        elif returns == RETURN_UPDATED_OLD and item is not None:
                            part = changed.updated_old(item)
                        attributes = encode_item(part) if part else None
        if indexing is None:
            result = ActionResult(old_size, new_size, attributes)
        else:
            units, collection_size = indexing.change(action, stored, new_body, new_size)
            result = ActionResult(old_size, new_size, attributes, units, collection_size)
    except DynamoDBError as error:
        return Reason(error.code, error.message, None, old_size)
    effect.results.append(result)
    if new_body is None and old_body is None:
        return None  # deleting what is not there
    effect.mutations.append((action.key, new_body, new_size))
    effect.item_count_delta += (new_body is not None) - (old_body is not None)
    effect.size_bytes_delta += new_size - old_size
    if keep_images and not _same(old_body, new_body, old_size == new_size):
        effect.images.append((action.key, old_body, new_body))
    return None


def _same(old: bytes | None, new: bytes | None, same_size: bool) -> bool:
    """Whether two bodies are the same item, attribute order aside."""
    if old == new:
        return True
    if old is None or new is None or not same_size:
        return False
    return equal({"M": decode_item(old)}, {"M": decode_item(new)})
