"""DescribeEndpoints: where clients that discover endpoints shall go."""

import msgspec

from datamodel.requests import DescribeEndpointsRequest
from router.context import Call

CACHE_PERIOD_MINUTES = 1440


def handle(request: DescribeEndpointsRequest, call: Call) -> None:
    """Back to where the client came from: whatever name leads here, it is one that the client can reach."""
    address = call.context.host().decode("latin-1")
    if not address:
        address = f"dynamodb.{call.services.region}.amazonaws.com"
    endpoint = {"Address": address, "CachePeriodInMinutes": CACHE_PERIOD_MINUTES}
    call.succeed(msgspec.json.encode({"Endpoints": [endpoint]}))
