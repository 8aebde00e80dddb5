"""What an UpdateExpression weighs by itself."""

import pytest

from datamodel.errors import ValidationError
from datamodel.expressions import parse_update, read_update
from datamodel.expressions.legacy import update_text
from datamodel.limits import ITEM_SIZE_BYTES_MAX

TOO_LARGE = "Item size to update has exceeded the maximum allowed size"
VALUE = {"S": "x" * 10}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("SET abc = :v", 3 + 19 + 3 + 10),
        ("SET abc = :v, d = :v", 3 + 19 + 3 + 10 + 19 + 1 + 10),
        ("SET a.bc[12] = :v", 3 + 19 + 1 + (4 + 2) + (4 + 2) + 10),
        ("SET a = b.cd", 3 + 19 + 1 + 1 + (14 + 1) + (14 + 2)),
        ("SET a = b + :n", 3 + 19 + 1 + 34 + (1 + 15) + 2),
        ("SET a = b - :n", 3 + 19 + 1 + 37 + (1 + 15) + 2),
        ("SET a = if_not_exists(b, :v)", 3 + 19 + 1 + 39 + (1 + 15) + 10),
        ("SET a = list_append(b, :l)", 3 + 19 + 1 + 37 + (1 + 15) + 3),
        ("ADD a :n", 3 + 19 + 1 + 2),
        ("ADD a :s", 3 + 19 + 1 + 3),
        ("REMOVE a, b.c", 3 + (1 + 1) + (1 + 1 + 5)),
        ("DELETE a :s", 3 + 1 + 1),
    ],
)
def test_what_counts(text, size, monkeypatch):
    values = {":v": VALUE, ":n": {"N": "1"}, ":l": {"L": []}, ":s": {"SS": ["a", "bc"]}}
    update = parse_update(text, None)
    monkeypatch.setattr("datamodel.expressions.updates.ITEM_SIZE_BYTES_MAX", size)
    update.check_statement_size(values)
    assert update.statement_size_max(100) >= size
    monkeypatch.setattr("datamodel.expressions.updates.ITEM_SIZE_BYTES_MAX", size - 1)
    with pytest.raises(ValidationError, match=TOO_LARGE):
        update.check_statement_size(values)


def test_older_parameters_have_no_size_of_their_own():
    update = read_update(update_text([("PUT", "a", ":v")]), None)
    assert update.statement_size_max(ITEM_SIZE_BYTES_MAX) == 0
