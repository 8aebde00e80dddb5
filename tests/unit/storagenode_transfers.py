"""Snapshot transfers without sockets: senders by address, and links that can be cut after so many chunks."""

import asyncio
import random

import grpc

from proto import control_pb2
from storagenode.data_directory import Peer
from storagenode.snapshots.snapshot_receiving import SnapshotReceiver
from storagenode.snapshots.snapshot_sending import Busy, SnapshotSender, Unsound
from storagenode.snapshots.snapshots import staging_file


def failure(code, details):
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


async def stream(sender, replica, request, node_id="n"):
    """As `ControlService.FetchSnapshot`."""
    with sender.hold(replica, request) as held:
        async for chunk in sender.stream(held, request, node_id):
            yield chunk


class Wire:
    """`open_channel` of a receiver.

    Attributes:
        requests: What was asked, of whom.
        cut_after: Chunks until the link breaks, None for never.
        spoil: Called with each chunk.
    """

    def __init__(self):
        self.senders = {}
        self.requests = []
        self.cut_after = None
        self.spoil = lambda chunk: None
        self.delivered = 0

    def serve(self, address, sender, replica, node_id):
        self.senders[address] = (sender, replica, node_id)

    def __call__(self, address, options):
        return _Channel(self, address)

    async def stream(self, address, request):
        copy = control_pb2.FetchSnapshotRequest()
        copy.CopyFrom(request)
        self.requests.append((address, copy))
        if address not in self.senders:
            raise failure(grpc.StatusCode.UNAVAILABLE, "nobody there")
        sender, replica, node_id = self.senders[address]
        left = self.cut_after
        try:
            with sender.hold(replica, request) as held:
                async for chunk in sender.stream(held, request, node_id):
                    if left is not None:
                        if not left:
                            raise failure(grpc.StatusCode.UNAVAILABLE, "cut")
                        left -= 1
                    arrived = control_pb2.SnapshotChunk.FromString(chunk.SerializeToString())
                    self.spoil(arrived)
                    self.delivered += len(arrived.records)
                    yield arrived
        except Busy as error:
            raise failure(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
        except Unsound as error:
            raise failure(grpc.StatusCode.DATA_LOSS, str(error)) from error


class _Channel:
    def __init__(self, wire, address):
        self._wire, self._address = wire, address

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    def unary_unary(self, path, **_):
        return None

    def unary_stream(self, path, **_):
        if not path.endswith("FetchSnapshot"):
            return None
        return lambda request, timeout: self._wire.stream(self._address, request)


class Transfers:
    """A receiver, and senders that it reaches: `world.replica` of each is asked for."""

    def __init__(self, directory, rate_bytes=0):
        self.file = staging_file(directory, 7)
        self.wire = Wire()
        self.peers = {}
        self.senders = {}
        self.rate_bytes = rate_bytes
        self.restart_receiver()

    def add(self, name, world):
        """A node; again with the same name: its process was restarted."""
        self.peers[name] = Peer(name, name, "az", f"{name}:1", f"{name}:2")
        world.environment.random = random.Random(f"{name} {len(self.senders)}")
        sender = SnapshotSender(world.engine, world.environment, self.rate_bytes)
        self.senders[name] = sender
        self.wire.serve(f"{name}:2", sender, world.replica, name)
        return sender

    def restart_receiver(self):
        self.receiver = SnapshotReceiver(
            self.peers.get, lambda: asyncio.get_running_loop().time(), 0, self.wire
        )

    async def fetch(self, name, at_least=0):
        return await self.receiver.fetch(self.peers[name], 7, at_least, self.file)
