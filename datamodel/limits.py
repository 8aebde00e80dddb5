"""Published limits of DynamoDB that the code checks, each named once, its unit last.

Sources: DynamoDB developer guide, "Service, account, and table quotas" and "Constraints"; the service model;
where those are silent, behaviour measured on the service.
"""

# --- items and values
ITEM_SIZE_BYTES_MAX = 400 * 1024
PARTITION_KEY_SIZE_BYTES_MAX = 2048
SORT_KEY_SIZE_BYTES_MAX = 1024
ATTRIBUTE_NAME_SIZE_BYTES_MAX = 65_535
NESTING_DEPTH_MAX = 32
"""Levels of one attribute value: a scalar is one level, a scalar in a map two."""

# --- numbers
NUMBER_DIGITS_MAX = 38
NUMBER_EXPONENT_MAX = 125
"""Power of ten of the first significant digit of the largest number."""
NUMBER_EXPONENT_MIN = -130

# --- expressions
EXPRESSION_SIZE_BYTES_MAX = 4096
EXPRESSION_OPERATORS_MAX = 300
EXPRESSION_IN_OPERANDS_MAX = 100
EXPRESSION_PLACEHOLDER_SIZE_BYTES_MAX = 255
EXPRESSION_PLACEHOLDERS_SIZE_BYTES_MAX = 2 * 1024 * 1024
"""Placeholders with what they stand for: those for names, those for values, and both together."""
DOCUMENT_PATH_DEPTH_MAX = 32
LEGACY_COMPARISONS_MAX = 2_000
"""Conditions and operands of one Expected, QueryFilter or ScanFilter together: our own bound, about what the
size of an expression allows, because a filter is evaluated on every item of a page."""

# --- requests
REQUEST_SIZE_BYTES_MAX = 16 * 1024 * 1024
PAGE_SIZE_BYTES_MAX = 1024 * 1024
"""Bytes of evaluated items after which a Query or Scan page ends."""
BATCH_GET_KEYS_MAX = 100
BATCH_WRITE_ACTIONS_MAX = 25
BATCH_SIZE_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of items that one BatchGetItem returns at most."""
BATCH_PARTITION_SIZE_BYTES_MAX = 1024 * 1024
"""Bytes of items from one partition after which a BatchGetItem reads no more of it."""
LIST_TABLES_LIMIT_MAX = 100

# --- tables
TABLE_NAME_LENGTH_MIN = 3
TABLE_NAME_LENGTH_MAX = 255
TABLES_MAX = 2500
LOCAL_INDEXES_MAX = 5
TAGS_MAX = 50
TAG_KEY_LENGTH_MAX = 128
TAG_VALUE_LENGTH_MAX = 256
TAG_SET_SIZE_BYTES_MAX = 10 * 1024
TABLES_CHANGING_MAX = 500
"""Tables that are being created or deleted at the same time."""
ITEM_COLLECTION_SIZE_BYTES_MAX = 10 * 1024**3

# --- capacity
READ_UNIT_BYTES = 4096
WRITE_UNIT_BYTES = 1024
TABLE_CAPACITY_UNITS_MAX = 40_000
ACCOUNT_CAPACITY_UNITS_MAX = 80_000
PARTITION_READ_UNITS_MAX = 3000
PARTITION_WRITE_UNITS_MAX = 1000
