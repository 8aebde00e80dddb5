"""Messages of dynamodb.proto <-> the JSON members of the AWS API, both ways and nowhere else.

The translation is driven by descriptors: a field's json_name is the member's name, and the few messages that
exist only because protobuf cannot nest its containers (`Item`, `MapValue`, sets and lists) vanish. What to do
for a message type is worked out once and kept.

Only set fields become members and only known members become fields, so `from_members(to_members(m), type(m))`
is `m`.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from proto import dynamodb_pb2

_MessageT = TypeVar("_MessageT", bound=Message)
_ToValue: TypeAlias = Callable[[Any], Any]
_SetField: TypeAlias = Callable[[Any, Any], None]

# protobuf's implementations of a descriptor have no type in common.
_Descriptor: TypeAlias = Any

# Messages that stand for what their only field holds.
_WRAPPERS: Final[dict[str, str]] = {
    descriptor.full_name: descriptor.fields[0].name
    for descriptor in (
        dynamodb_pb2.Item.DESCRIPTOR,
        dynamodb_pb2.StringSet.DESCRIPTOR,
        dynamodb_pb2.NumberSet.DESCRIPTOR,
        dynamodb_pb2.BinarySet.DESCRIPTOR,
        dynamodb_pb2.MapValue.DESCRIPTOR,
        dynamodb_pb2.ListValue.DESCRIPTOR,
        dynamodb_pb2.ItemList.DESCRIPTOR,
        dynamodb_pb2.WriteRequests.DESCRIPTOR,
        dynamodb_pb2.ItemCollectionMetricsMultiple.DESCRIPTOR,
    )
}
_INTEGER_TYPES: Final = frozenset((FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64))


def to_members(message: Message) -> dict[str, Any]:
    """The JSON object of a request or response; binary values become base64."""
    members: dict[str, Any] = _value_of_message(message)
    return members


def from_members(members: Mapping[str, Any], message_type: type[_MessageT]) -> _MessageT:
    """The message with these members; members that it does not have are left out.

    Raises:
        ValueError: A member's type or range is not that of its field.
    """
    message = message_type()
    fill(message, members)
    return message


def fill(message: Message, value: Any) -> None:
    """Set a message's fields from the JSON value that it stands for (see `from_members`)."""
    try:
        _filler(message.DESCRIPTOR)(message, value)
    except (TypeError, AttributeError, binascii.Error) as error:
        raise ValueError(f"no {message.DESCRIPTOR.full_name}: {error}") from error


# --- message -> JSON ---------------------------------------------------------------------------------------

_readers: Final[dict[str, tuple[str | None, dict[int, tuple[str, _ToValue | None]]]]] = {}


def _value_of_message(message: Message) -> Any:
    descriptor = message.DESCRIPTOR
    reader = _readers.get(descriptor.full_name)
    if reader is None:
        reader = _readers[descriptor.full_name] = _make_reader(descriptor)
    wrapped, fields = reader
    if wrapped is not None:
        _, to_value = fields[descriptor.fields[0].number]
        content = getattr(message, wrapped)
        return content if to_value is None else to_value(content)
    members = {}
    for field, value in message.ListFields():
        name, to_value = fields[field.number]
        members[name] = value if to_value is None else to_value(value)
    return members


def _make_reader(
    descriptor: _Descriptor,
) -> tuple[str | None, dict[int, tuple[str, _ToValue | None]]]:
    fields = {field.number: (field.json_name, _field_reader(field)) for field in descriptor.fields}
    return _WRAPPERS.get(descriptor.full_name), fields


def _field_reader(field: FieldDescriptor) -> _ToValue | None:
    """What turns a field's value into its JSON form; None where it is that already."""
    if _is_map(field):
        return _entries_reader(_element_reader(_map_value(field)))
    element = _element_reader(field)
    return _list_reader(element) if field.is_repeated else element


def _entries_reader(element: _ToValue | None) -> _ToValue:
    if element is None:
        return dict
    return lambda entries: {key: element(value) for key, value in entries.items()}


def _list_reader(element: _ToValue | None) -> _ToValue:
    if element is None:
        return list
    return lambda values: [element(value) for value in values]


def _element_reader(field: FieldDescriptor) -> _ToValue | None:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _value_of_message
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: base64.b64encode(value).decode("ascii")
    return None


# --- JSON -> message ---------------------------------------------------------------------------------------

_fillers: Final[dict[str, _SetField]] = {}


def _filler(descriptor: _Descriptor) -> _SetField:
    filler = _fillers.get(descriptor.full_name)
    if filler is None:
        filler = _fillers[descriptor.full_name] = _make_filler(descriptor)
    return filler


def _make_filler(descriptor: _Descriptor) -> _SetField:
    if descriptor.full_name in _WRAPPERS:
        return _field_setter(descriptor.fields[0])
    setters = {field.json_name: _field_setter(field) for field in descriptor.fields}

    def fill_members(message: Any, members: Mapping[str, Any]) -> None:
        for name, value in members.items():
            setter = setters.get(name)
            if setter is not None and value is not None:
                setter(message, value)

    return fill_members


def _field_setter(field: FieldDescriptor) -> _SetField:
    name = field.name
    if _is_map(field):
        return _map_setter(name, _map_value(field))
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        # Resolved when first used: types contain themselves.
        inner: _Descriptor = field.message_type
        if field.is_repeated:

            def add_messages(message: Any, values: Iterable[Any]) -> None:
                container = getattr(message, name)
                filler = _filler(inner)
                for value in values:
                    filler(container.add(), value)

            return add_messages

        def set_message(message: Any, value: Any) -> None:
            target = getattr(message, name)
            target.SetInParent()
            _filler(inner)(target, value)

        return set_message
    convert = _scalar_converter(field)
    if field.is_repeated:
        return lambda message, values: getattr(message, name).extend(
            values if convert is None else [convert(value) for value in values]
        )
    if convert is None:
        return lambda message, value: setattr(message, name, value)
    return lambda message, value: setattr(message, name, convert(value))


def _map_setter(name: str, value_field: FieldDescriptor) -> _SetField:
    if value_field.type == FieldDescriptor.TYPE_MESSAGE:
        inner: _Descriptor = value_field.message_type

        def fill_entries(message: Any, entries: Mapping[str, Any]) -> None:
            container = getattr(message, name)
            filler = _filler(inner)
            for key, value in entries.items():
                filler(container[key], value)  # getting an entry makes it

        return fill_entries
    return lambda message, entries: getattr(message, name).update(entries)


def _scalar_converter(field: FieldDescriptor) -> Callable[[Any], Any] | None:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: base64.b64decode(value, validate=True)
    if field.type in _INTEGER_TYPES:
        return int
    return None


def _is_map(field: _Descriptor) -> bool:
    return bool(
        field.type == FieldDescriptor.TYPE_MESSAGE
        and field.message_type.GetOptions().map_entry
        and field.is_repeated
    )


def _map_value(field: _Descriptor) -> FieldDescriptor:
    value: FieldDescriptor = field.message_type.fields_by_name["value"]
    return value
